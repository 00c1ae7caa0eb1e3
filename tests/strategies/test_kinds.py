"""One word for what a job does: in a plan, in what the job is told, in what it answers and in its row."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from storage.states import JOB_KINDS
from strategies.contract import JobKind, JobResult, Template, Work


def kinds_in(union: Any) -> list[str]:
    return [one.model_fields["kind"].default for one in get_args(get_args(union)[0])]


def test_every_kind_of_work_is_a_kind_of_job_and_the_reverse() -> None:
    assert sorted(kinds_in(Work)) == sorted(JOB_KINDS) == sorted(get_args(JobKind))


def test_a_template_is_called_like_the_work_that_is_made_of_it() -> None:
    assert set(kinds_in(Template)) < set(kinds_in(Work))


@pytest.mark.parametrize("kind", JOB_KINDS)
def test_a_job_of_any_kind_may_answer(kind: JobKind) -> None:
    assert JobResult(kind=kind).kind == kind
