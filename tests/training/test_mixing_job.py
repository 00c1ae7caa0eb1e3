"""Weighted mixing as a job: what it leaves, parts of one batch, a mixture found earlier, exact resume, tiny runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from strategies.agent.trajectories import read
from strategies.contract import JobSpec, TrainWork
from strategies.inference.precision import device_for
from strategies.jobs.mixing import bound, read_mixture, write_mixture
from strategies.jobs.runtime import Stopped
from strategies.training import data
from tests.training import makers

SKILL = {"kind": "skill-it", "eta": 2.0, "window": 2, "graph": {"new": {"new": 1.0}, "old": {"old": 1.0}}}


def weighted(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "weighted",
        "domains": {"new": ["batch-1"], "old": ["anchor"]},
        "weights": {"old": "0.5"},
        "rest": "new",
        "batch": 4,
        "order": 11,
        "new": ["batch-1"],
        "measured": {"new": ["fresh"], "old": ["known"]},
        "observe_every": 2,
        "reweight": SKILL,
        "limits": {},
        **changes,
    }


def job(
    folder: Path, model: Path, *, steps: int = 6, mixing: dict[str, Any] | None = None, **work: Any
) -> dict[str, Any]:
    """A train job over a new batch of long and an anchor of short texts, measured on two sets."""
    made = makers.train_job(folder, model, makers.text_documents(20), steps=steps, state=["state/mixing"])
    anchor = makers.source(folder / "anchor.parquet", makers.text_documents(20, start=40), name="anchor", role="old")
    made["work"]["sources"].append(makers.as_json(anchor))
    made["work"]["template"]["mixing"] = mixing or weighted()
    sets = [
        makers.held(folder / "fresh.parquet", makers.text_documents(6, start=80), number=1),
        makers.held(folder / "known.parquet", makers.text_documents(6, start=90), number=2),
    ]
    made["work"] |= {"select": [makers.as_json(one) for one in sets], **work}
    return made


def test_the_course_of_the_weights_is_kept_in_the_facts_and_as_evidence(tmp_path: Path, llama: Path) -> None:
    result = makers.carry_out(tmp_path / "job", job(tmp_path, llama))
    course = result.facts["mixture"]
    assert [point["step"] for point in course] == [0, 2, 4, 6]
    assert all(set(point["losses"]) == {"new", "old"} for point in course)
    assert len({point["weights"]["old"] for point in course}) > 1
    kept = (tmp_path / "job" / "out" / "mixture" / "mixture.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == course
    (run,) = read(tmp_path / "job" / "out" / "trajectory" / "trajectory.jsonl")
    assert [one.name for one in run.domains if one.new] == ["new"]
    assert [done.losses for done in run.steps] == [(p["losses"]["new"], p["losses"]["old"]) for p in course[1:]]
    assert {one.role for one in result.consumed} == {"trained", "replayed"}


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_an_interrupted_run_ends_as_the_whole_one(tmp_path: Path, llama: Path, stop: int) -> None:
    made = job(tmp_path, llama)
    whole = makers.loop(tmp_path / "whole", made)
    whole.train()
    with pytest.raises(Stopped):
        makers.loop(tmp_path / "first", made, stop_at=stop).train()
    resumed = makers.loop(tmp_path / "second", {**made, "resume_from": [str(tmp_path / "first")]})
    resumed.train()
    assert resumed.progress.resumed_from == [stop]
    assert resumed.progress.mixing == whole.progress.mixing
    makers.assert_equal(makers.weights(resumed), makers.weights(whole))


def test_documents_of_one_batch_in_two_domains_are_one_bitmap(tmp_path: Path, llama: Path) -> None:
    documents = [
        {"text": one["text"], "domain": "even" if at % 2 == 0 else "odd"}
        for at, one in enumerate(makers.text_documents(12))
    ]
    mixing = weighted(
        domains={"even": ["batch-1/even"], "odd": ["batch-1/odd"]},
        weights={"odd": "0.5"},
        rest="even",
        new=["batch-1/even", "batch-1/odd"],
        measured={"even": [], "odd": []},
        divide="column",
        observe_every=None,
        reweight=None,
    )
    made = job(tmp_path, llama, steps=60, mixing=mixing)
    source = makers.source(tmp_path / "parts.parquet", documents, name="batch-1")
    made["work"]["sources"] = [makers.as_json(source)]
    result = makers.carry_out(tmp_path / "job", made)
    (consumed,) = result.consumed
    assert consumed.documents == 12
    assert consumed.samples == 240
    assert set(result.facts["sources"]) == {"batch-1/even", "batch-1/odd"}


@pytest.mark.parametrize(("rows", "old"), [({"batch-1": 100, "anchor": 100}, 0.05), ({"batch-1": 3, "anchor": 9}, 0.5)])
def test_a_mixture_that_an_earlier_job_found_takes_the_place_of_the_weights_within_their_limits(
    tmp_path: Path, llama: Path, rows: dict[str, int], old: float
) -> None:
    """24 rows are drawn; the floor is 0.1 / 2, and 3 rows are 4 times 3 of 24 at most."""
    write_mixture(tmp_path / "found", {"new": 0.999, "old": 0.001})
    mixing = weighted(mixture="@fit/state/mixture", reweight=None)
    spec = JobSpec.model_validate(job(tmp_path, llama, mixing=mixing, mixture=str(tmp_path / "found")))
    assert isinstance(spec.work, TrainWork)
    found = bound(spec.work, rows).template.mixing
    assert found.kind == "weighted"
    assert float(found.weights["old"]) == pytest.approx(old, abs=1e-5)


def test_a_mixture_that_was_found_for_an_agents_guard_leaves_the_weights(tmp_path: Path, llama: Path) -> None:
    write_mixture(tmp_path / "found", {"new": 0.999, "old": 0.001})
    agent = {"kind": "agent", "folder": "agent", "sha256": "0", "patience": 3}
    mixing = weighted(mixture="@fit/state/mixture", reweight=agent)
    spec = JobSpec.model_validate(job(tmp_path, llama, mixing=mixing, mixture=str(tmp_path / "found")))
    assert isinstance(spec.work, TrainWork)
    before = spec.work.template.mixing
    found = bound(spec.work, {"batch-1": 100, "anchor": 100}).template.mixing
    assert found.kind == before.kind == "weighted"
    assert (found.weights, found.mixture) == (before.weights, None)
    assert found.reweight is not None
    assert found.reweight.kind == "agent"
    assert found.reweight.found == pytest.approx({"new": 0.999, "old": 0.001})


def test_doremis_proxy_leaves_the_mean_of_its_weights(tmp_path: Path, llama: Path) -> None:
    other = makers.carry_out(tmp_path / "reference", job(tmp_path, llama, mixing=weighted(reweight=None)))
    made = job(tmp_path, llama, reference={"path": str(tmp_path / "reference" / other.artifacts["answer/model"])})
    made["work"]["template"] |= {
        "objective": {"kind": "group-dro", "prior": {"new": 0.5, "old": 0.5}, "eta": 1.0, "smoothing": 1e-3},
        "reference": "@reference/answer/model",
        "state": ["state/mixture"],
        "mixing": weighted(reweight=None, observe_every=None),
    }
    result = makers.carry_out(tmp_path / "proxy", made)
    course = result.facts["mixture"]
    found = read_mixture(tmp_path / "proxy" / result.artifacts["state/mixture"])
    mean = sum(float(point["weights"]["old"]) for point in course) / len(course)
    assert float(found["old"]) == pytest.approx(mean, abs=1e-5)
    assert sum(map(float, found.values())) == pytest.approx(1)


def test_tiny_runs_go_on_where_an_earlier_attempt_ended_and_are_fitted(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixtures = [{"new": at / 23, "old": 1 - at / 23} for at in range(24)]
    plain = job(tmp_path, llama)
    template = {
        "init": "@live/answer/model",
        "mixing": weighted(reweight=None),
        "mixtures": mixtures,
        "targets": ["new"],
        "proxy": {"hidden": 16, "length": 16, "step_tokens": 128, "steps": 1, "initial_steps": 1, "vocabulary": 64},
        "training": makers.training(),
    }
    work = {key: plain["work"][key] for key in ("sources", "forbidden", "select")}
    spec = {**plain, "work": {"kind": "proxy", "template": template, **work}}
    hashed = makers.calls(monkeypatch, data, "sha256_file")
    whole = makers.carry_out(tmp_path / "whole", spec)
    assert [hashed.count(Path(source["path"])) for source in work["sources"]] == [1, 1]
    lines = (tmp_path / "whole" / "out" / "runs" / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "torn" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torn" / "checkpoints" / "runs.jsonl").write_text("".join(lines[:20]))
    resumed = makers.carry_out(tmp_path / "resumed", {**spec, "resume_from": [str(tmp_path / "torn")]})
    assert (tmp_path / "resumed" / "out" / "runs" / "runs.jsonl").read_text() == "".join(lines)
    assert resumed.facts["tokens"] < whole.facts["tokens"]
    assert resumed.consumed == whole.consumed
    assert whole.facts["device"] == str(device_for("auto"))
    assert [(one.role, one.documents, one.samples) for one in whole.consumed] == [
        ("trained", 20, 0),
        ("replayed", 20, 0),
    ]
    equal = {"new": 0.5, "old": 0.5}
    sides: dict[str, Any] = {"old": ["old"], "new": ["new"], "budget": 1e5, "tokens": {"new": 1e6, "old": 1e6}}
    fit: dict[str, Any] = {"prior": equal, **sides, "simulated": 500, "rounds": 20}
    template = {
        "init": "@live/answer/model",
        "runs": ["@proxy-1/evidence/runs"],
        "fit": fit,
        "training": makers.training(),
    }
    runs = [str(tmp_path / "whole" / "out" / "runs")]
    found = makers.carry_out(tmp_path / "fit", {**plain, "work": {"kind": "fit", "runs": runs, "template": template}})
    assert sum(map(float, read_mixture(tmp_path / "fit" / "out" / "found").values())) == pytest.approx(1)
    assert json.loads((tmp_path / "fit" / "out" / "regmix" / "regmix.json").read_text())["chosen"] in (
        "linear",
        "boosted",
    )
    assert found.facts["runs"] == 24
