"""Plans as graphs: references, order, and what cannot be carried out."""

from typing import Any

import pytest

from strategies.contract import Plan
from strategies.contract.graph import along, needs, order, parse_reference, validate
from strategies.errors import BadPlan
from tests.strategies.makers import plan


def changed(made: Plan, job: str, **changes: Any) -> Plan:
    jobs = {**made.jobs, job: made.jobs[job].model_copy(update=changes)}
    return made.model_copy(update={"jobs": jobs})


def test_a_reference_names_an_owner_and_a_role() -> None:
    assert parse_reference("@trunk/state/optimizer") == ("trunk", "state/optimizer")
    assert parse_reference("@live/answer/model").is_job is False


@pytest.mark.parametrize("text", ["live/answer/model", "@live", "@/answer", "@live/"])
def test_a_text_that_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(BadPlan, match="no reference"):
        parse_reference(text)


def test_jobs_come_after_all_they_need() -> None:
    made = plan(schedule="infinite")
    backwards = made.model_copy(update={"jobs": dict(reversed(made.jobs.items()))})
    assert order(backwards) == ("trunk", "release")
    assert needs(backwards, "release") == ("trunk",)
    assert needs(backwards, "trunk") == ()


def test_rows_are_counted_along_the_jobs_that_the_result_stands_on() -> None:
    chain = plan(schedule="infinite")
    assert along(chain, {"trunk": 90, "release": 10}) == 100
    merged = plan(consolidation={"kind": "merge", "siblings": 3})
    assert along(merged, {"train-1": 50, "train-2": 60, "train-3": 55}) == 60
    searched = plan(name="data-mixing", mixing={"reweight": "doremi"})
    assert along(searched, {"reference": 25, "proxy": 25, "train": 100}) == 100


def test_an_unknown_job_is_refused() -> None:
    with pytest.raises(BadPlan, match="no job stem"):
        validate(changed(plan(), "train", init="@stem/answer/model"))


def test_an_artifact_that_a_job_does_not_leave_is_refused() -> None:
    with pytest.raises(BadPlan, match="does not leave it"):
        validate(changed(plan(schedule="infinite"), "trunk", state=("state/trunk",)))


def test_a_missing_result_is_refused() -> None:
    with pytest.raises(BadPlan, match="job release"):
        validate(plan().model_copy(update={"result": "release"}))


def test_a_cycle_is_refused() -> None:
    made = changed(plan(schedule="infinite"), "trunk", init="@release/answer/model")
    with pytest.raises(BadPlan, match="wait for each other"):
        validate(made)


def test_a_job_cannot_take_the_name_of_a_version() -> None:
    made = plan()
    with pytest.raises(BadPlan, match="called live"):
        validate(made.model_copy(update={"jobs": {"live": made.jobs["train"]}, "result": "live"}))


def test_plans_survive_json() -> None:
    made = plan(schedule="infinite")
    assert Plan.model_validate_json(made.model_dump_json()) == made
