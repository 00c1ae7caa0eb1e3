"""Versions merged at a user's word: one more candidate, gated like any other; the flow with a toy model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.errors import BadInput, Conflict, NotFound
from orchestrator.flow import promotion, registration, rollback
from orchestrator.jobs import queue
from orchestrator.service.commands import batches, merging
from orchestrator.service.names import VersionName
from orchestrator.service.records import MergeRecord, VersionDetail
from orchestrator.service.views.versions import show_version
from storage.tables import Job, Version, VersionArtifact
from tests.flow.harness import NEW, Daemon, daemon_at
from tests.flow.toy_job import write_model

OTHER = "another set of words altogether comes along today"


def ask(daemon: Daemon, *versions: int, method: str = "soup", **more: Any) -> MergeRecord:
    values: dict[str, Any] = {"settings": {}, "weights": (), "base": None, "into": None, "dry_run": False, **more}
    return merging.merge(daemon.app, "s", versions, method=method, **values)


def shown(daemon: Daemon, number: int) -> VersionDetail:
    return show_version(daemon.app, VersionName(stream="s", number=number))


@pytest.fixture(scope="module")
def fork(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where a forked stream's daemon lived, and a copy of its files: made once, for it takes two retrains."""
    root, kept = tmp_path_factory.mktemp("fork"), tmp_path_factory.mktemp("kept") / "fork"
    shutil.copy(sqlite_template, root / "rekindle.db")
    with daemon_at(root) as daemon:
        daemon.add_stream(gate={"repair": False})
        for name, text in (("one", NEW), ("two", OTHER)):
            batch = daemon.ingest(text, name=name)
            daemon.retrain("naive")
            batches.hold(daemon.app, batch, reason="kept apart", actor="test")
        assert daemon.versions() == {1: "live", 2: "rejected", 3: "rejected"}
    shutil.copytree(root, kept, symlinks=True)
    return root, kept


@pytest.fixture
def forked(fork: tuple[Path, Path]) -> Iterator[Daemon]:
    """Version 1 is live, 2 and 3 came from it, each on a batch of its own; both were refused for forgetting."""
    root, kept = fork
    shutil.rmtree(root)
    shutil.copytree(kept, root, symlinks=True)
    with daemon_at(root) as daemon:
        yield daemon


def test_a_merge_is_gated_like_any_candidate_and_its_batches_are_trained_once_it_is_live(forked: Daemon) -> None:
    asked = ask(forked, 2, 3, method="ties", settings={"density": 0.3})
    assert (asked.base, asked.parents, asked.into, asked.made) == (1, (2, 3), "model", None)
    forked.settle()
    assert forked.versions() == {1: "retired", 2: "rejected", 3: "rejected", 4: "live"}
    assert set(forked.batch_states().values()) == {"trained"}
    made = shown(forked, 4)
    assert [(one.parent, one.role, one.weight) for one in made.edges] == [(2, "merged", 1.0), (3, "merged", 1.0)]
    assert made.batches == tuple(sorted(forked.batch_states()))
    assert made.strategy == "merge ties"
    assert made.verdict is not None
    assert made.verdict.outcome == "pass"
    assert ask(forked, 2, 3, method="ties", settings={"density": 0.3}).made == 4


def test_a_rollback_from_a_merge_holds_the_batches_behind_all_its_parents(forked: Daemon) -> None:
    ask(forked, 2, 3)
    forked.settle()
    rollback.roll_back(forked.app, "s", to=1, reason="worse", actor="test")
    assert set(forked.batch_states().values()) == {"held"}


def test_a_merge_that_is_no_better_stays_out(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    daemon.retrain()
    ask(daemon, 1, 2)
    daemon.settle()
    assert daemon.versions() == {1: "retired", 2: "live", 3: "rejected"}
    made = shown(daemon, 3)
    assert made.verdict is not None
    assert "not better" in made.verdict.reason


@pytest.mark.slow
def test_in_record_mode_a_merge_goes_live_whatever_the_gate_says(daemon: Daemon) -> None:
    daemon.add_stream(gate={"mode": "record"})
    daemon.ingest(NEW)
    daemon.retrain()
    ask(daemon, 1, 2)
    daemon.settle()
    assert daemon.versions() == {1: "retired", 2: "retired", 3: "live"}


@pytest.mark.slow
def test_changes_are_counted_from_the_nearest_version_above_all(daemon: Daemon) -> None:
    daemon.add_stream()
    for name, text in (("one", NEW), ("two", OTHER)):
        daemon.ingest(text, name=name)
        daemon.retrain()
    assert ask(daemon, 2, 3, dry_run=True).base == 1
    assert ask(daemon, 2, 3, dry_run=True, base=2).base == 2
    assert ask(daemon, 1, 3, dry_run=True).base == 1
    back = ask(daemon, 2, 3, method="interpolate", settings={"share": 0.2})
    assert (back.base, back.weights) == (2, (1.0,))
    daemon.settle()
    made = shown(daemon, 4)
    assert [(one.parent, one.weight) for one in made.edges] == [(2, 0.2), (3, 0.8)]


@pytest.mark.slow
def test_lines_has_the_lineage_of_the_merge_that_it_follows(daemon: Daemon) -> None:
    daemon.add_stream()
    for name, text in (("one", NEW), ("two", OTHER)):
        daemon.ingest(text, name=name)
        daemon.retrain()
    back = {"alpha": 0.5, "beta": 0.2, "after.kind": "interpolate", "after.share": 0.2}
    assert ask(daemon, 2, 3, method="lines", settings=back).base == 2
    daemon.settle()
    assert [(one.parent, one.weight) for one in shown(daemon, 4).edges] == [(2, 0.52), (3, pytest.approx(0.48))]
    ask(daemon, 2, 3, method="lines", settings={"beta": 0.5, "after.kind": "soup"}, base=4)
    daemon.settle()
    assert [(one.parent, one.weight) for one in shown(daemon, 5).edges] == [(2, 0.5), (3, 0.5), (4, 0.0)]


@pytest.mark.parametrize(
    ("method", "settings", "weight"),
    [
        ("soup", {}, 0.0),
        pytest.param("task-arithmetic", {"lam": 0.3}, 0.4, marks=pytest.mark.slow),
        ("ties", {}, 1.0),
        pytest.param("fisher", {}, 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_base_that_is_no_ancestor_of_all_is_a_parent_too(
    forked: Daemon, method: str, settings: dict[str, Any], weight: float
) -> None:
    batch = forked.ingest("a third set of words altogether", name="three")
    forked.retrain("naive")
    batches.hold(forked.app, batch, reason="kept apart", actor="test")
    told = ask(forked, 2, 3, method=method, settings=settings, base=4, dry_run=True)
    ask(forked, 2, 3, method=method, settings=settings, base=4)
    forked.settle()
    made = shown(forked, 5)
    assert {one.parent for one in made.edges} == {2, 3, 4}
    assert next(one.weight for one in made.edges if one.parent == 4) == pytest.approx(weight)
    assert made.batches == told.batches == tuple(sorted(forked.batch_states()))


@pytest.mark.slow
def test_a_base_that_is_merged_itself_has_one_edge(daemon: Daemon) -> None:
    daemon.add_stream()
    for name, text in (("one", NEW), ("two", OTHER)):
        daemon.ingest(text, name=name)
        daemon.retrain()
    ask(daemon, 2, 3, base=2)
    daemon.settle()
    assert [(one.parent, one.weight) for one in shown(daemon, 4).edges] == [(2, 0.5), (3, 0.5)]


def test_a_dry_run_queues_nothing(forked: Daemon) -> None:
    told = ask(forked, 2, 3, weights=(2.0, 1.0), dry_run=True)
    assert (told.job, told.weights, told.batches) == (None, (2.0, 1.0), tuple(sorted(forked.batch_states())))
    forked.settle()
    assert len(forked.versions()) == 3


def test_shares_of_a_soup_add_up_to_one(forked: Daemon) -> None:
    ask(forked, 2, 3, weights=(3.0, 1.0))
    forked.settle()
    ask(forked, 2, 3, method="greedy-soup")
    forked.settle()
    for number, expected in ((4, (0.75, 0.25)), (5, (1.0, 0.0))):
        made = shown(forked, number)
        assert tuple(one.weight for one in made.edges) == expected


def test_weights_below_zero_and_names_of_tensors_are_taken_where_they_fit(forked: Daemon) -> None:
    taken = ask(forked, 2, 3, method="task-arithmetic", weights=(1.0, -1.0), dry_run=True)
    assert taken.weights == (1.0, -1.0)
    ask(forked, 1, 2, method="half-reset", settings={"names": ["w"]}, dry_run=True)


def test_what_cannot_be_merged_is_refused_in_one_line(forked: Daemon) -> None:
    cases: list[tuple[tuple[int, ...], dict[str, Any], type[Exception], str]] = [
        ((2,), {}, BadInput, "at least two versions"),
        ((2, 2), {}, BadInput, "each once"),
        ((2, 9), {}, NotFound, "there is no version s/9"),
        ((2, 3), {"method": "tise"}, BadInput, "did you mean ties"),
        ((2, 3), {"method": "repair"}, BadInput, "is not one of"),
        ((2, 3), {"method": "ties", "settings": {"densty": 0.3}}, BadInput, "did you mean density"),
        ((2, 3), {"method": "ties", "settings": {"density": 3}}, BadInput, "ties: density: 3 is not valid"),
        ((2, 3), {"method": "ties", "weights": (1.0, 2.0)}, BadInput, "counts its versions alike"),
        ((2, 3), {"weights": (1.0,)}, BadInput, "need 2 weights, not 1"),
        ((2, 3), {"weights": (1.0, -1.0)}, BadInput, "soup is a mean, whose weights are 0 or more"),
        ((2, 3), {"weights": (0.0, 0.0)}, BadInput, "not all of them are 0"),
        ((2, 3), {"weights": (1e308, 1e308)}, BadInput, "finite numbers, and so is their sum"),
        ((1, 2), {"method": "half-reset", "settings": {"names": ["nope"]}}, BadInput, "names nope, which is no tensor"),
        ((1, 2, 3), {"method": "interpolate"}, BadInput, "takes two versions"),
        ((1, 2), {"method": "interpolate", "base": 1}, BadInput, "named first"),
    ]
    for versions, more, kind, said in cases:
        with pytest.raises(kind, match=said):
            ask(forked, *versions, **more)


def test_versions_of_different_bases_are_not_merged(daemon: Daemon) -> None:
    daemon.add_stream()
    write_model(daemon.root / "better", set(NEW.split()))
    registration.rebase(daemon.app, "s", model=str(daemon.root / "better"), revision=None, actor="test")
    daemon.settle()
    with pytest.raises(BadInput, match="have no common ancestor"):
        ask(daemon, 1, 2)


def test_a_bank_of_adapters_is_not_merged(forked: Daemon) -> None:
    with forked.app.database.write() as session:
        third = session.scalars(select(Version).where(Version.number == 3)).one()
        kept = session.scalars(select(VersionArtifact).where(VersionArtifact.version_id == third.id)).first()
        assert kept is not None
        session.add(VersionArtifact(version_id=third.id, role="answer/bank", manifest_hash=kept.manifest_hash))
    with pytest.raises(BadInput, match="s/3 is a bank"):
        ask(forked, 2, 3)


def adapt(daemon: Daemon, number: int, folder: int) -> None:
    """Make a version an adapter on the model of version ``folder``."""
    with daemon.app.database.write() as session:
        ids = {one.number: one.id for one in session.scalars(select(Version))}
        models = {one.version_id: one for one in session.scalars(select(VersionArtifact)) if one.role == "answer/model"}
        own, base = models[ids[number]], models[ids[folder]].manifest_hash
        session.add(VersionArtifact(version_id=ids[number], role="answer/adapter", manifest_hash=own.manifest_hash))
        own.manifest_hash = base


def test_adapters_become_an_adapter_unless_a_model_is_asked_for(forked: Daemon) -> None:
    forked.ingest("a third set of words altogether", name="three")
    forked.retrain("naive")
    for number in (2, 3):
        with pytest.raises(BadInput, match=f"version {number} is no adapter; merge into a model"):
            ask(forked, 2, 3, into="adapter")
        adapt(forked, number, 1)
    for asked, into in ((None, "adapter"), ("adapter", "adapter"), ("model", "model")):
        assert ask(forked, 2, 3, method="pcb", into=asked, dry_run=True).into == into
    for method in ("fisher", "greedy-soup"):
        assert ask(forked, 2, 3, method=method, dry_run=True).into == "model"
        with pytest.raises(BadInput, match=f"{method} merges full models; merge into a model"):
            ask(forked, 2, 3, method=method, into="adapter")
    with pytest.raises(BadInput, match="version 2 is an adapter on another model than version 4"):
        ask(forked, 2, 3, base=4, into="adapter")


def test_a_merge_that_failed_says_so_when_it_is_asked_for_again(forked: Daemon) -> None:
    asked = ask(forked, 2, 3)
    with forked.app.database.write() as session:
        queue.cancel(session, session.get_one(Job, asked.job or 0), actor="test", reason="enough")
    with pytest.raises(Conflict, match="cancelled before: enough"):
        ask(forked, 2, 3)


@pytest.mark.slow
def test_a_merged_version_can_be_promoted_by_hand(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    daemon.retrain()
    ask(daemon, 1, 2)
    daemon.settle()
    promotion.promote(daemon.app, "s", 3, force=True, reason="we want it", actor="test")
    assert daemon.versions()[3] == "live"
