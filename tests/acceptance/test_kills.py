"""kill -9 of the job and of the daemon at different moments: nothing lost, nothing trained twice, the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select

from storage import chain
from storage.artifacts import ArtifactStore
from storage.database import Database
from storage.tables import Attempt, Batch, Evaluation, Job, Version, VersionArtifact, VersionBatch
from tests import models
from tests.acceptance.daemon import Daemon, copy_home, write_jsonl
from tests.manifests import verify_manifest

STEPS = 60
SETTINGS = (
    *("--set", f"training.max_steps={STEPS}"),
    *("--set", "training.train_batch_size=8"),
    *("--set", "training.max_length=64"),
    *("--set", "training.save_steps=3"),
    *("--set", "gate.mode=record"),
)
KILLED_AT = (
    ".step-3.*", "step-3", ".step-6.*", "step-12", "step-18", ".step-24.*", "step-27",
    ".step-33.*", "step-39", "step-45", ".step-48.*", "step-51", "step-57",
)  # fmt: skip
"""Checkpoints that are whole and, with a dot, those that are being written."""
MOMENTS, MORE = ("training",), ("measuring", "evaluating", 1, 5, 7, 14, 20, 25, 27, 33)


class Outcome(NamedTuple):
    """What a run left that must not depend on what happened meanwhile."""

    artifacts: dict[str, str]
    rows: dict[tuple[int, str], tuple[bytes, int]]
    batches: dict[int, str]
    versions: dict[int, str]
    scores: dict[tuple[int, int], float]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return home_with_a_batch(tmp_path_factory.mktemp("kills"), "--strategy", "rewarm-replay")


def home_with_a_batch(root: Path, *settings: str) -> Path:
    """A home with a stream and a pending batch, measured so far as it can be."""
    model = models.llama(root / "base", hidden=64)
    anchor = write_jsonl(root / "anchor.jsonl", models.texts(60))
    batch = write_jsonl(root / "batch.jsonl", models.texts(80, start=100))
    daemon = Daemon(root / "home").start()
    daemon.cli("stream", "add", "s", "--model", str(model), "--set", f"anchor={anchor}", *SETTINGS, *settings)
    daemon.cli("ingest", "s", str(batch))
    # Only once both sets are scored is no further job begun, which would outlive this daemon and belong to no copy.
    daemon.wait(lambda: {"anchor", "batch-2"} <= daemon.json("version", "show", "s/1")["scores"].keys())
    daemon.stop()
    return root / "home"


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return left_undisturbed(prepared, tmp_path_factory.mktemp("undisturbed"))


def left_undisturbed(prepared: Path, folder: Path) -> Outcome:
    """What an undisturbed run leaves."""
    daemon = Daemon(copy_home(prepared, folder / "home")).start()
    daemon.cli("retrain", "s", "--wait")
    daemon.stop()
    return outcome(daemon)


@pytest.fixture
def daemon(prepared: Path, tmp_path: Path) -> Iterator[Daemon]:
    with daemon_of_a_copy(prepared, tmp_path / "home") as made:
        yield made


@contextmanager
def daemon_of_a_copy(prepared: Path, home: Path) -> Iterator[Daemon]:
    made = Daemon(copy_home(prepared, home)).start()
    try:
        yield made
    finally:
        made.stop()
        made.kill_jobs()


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", KILLED_AT)
def test_a_killed_job_goes_on_from_its_checkpoint(daemon: Daemon, undisturbed: Outcome, checkpoint: str) -> None:
    daemon.cli("retrain", "s")
    daemon.wait(lambda: daemon.newest_job() == ("train", False), every_s=0.005)
    folder = daemon.stop_training_at(checkpoint)
    whole = [int(path.name.removeprefix("step-")) for path in folder.glob("step-*")]
    daemon.kill_jobs()
    finish(daemon)
    assert outcome(daemon) == undisturbed
    assert attempts_of_train(daemon) == 2
    facts = daemon.json("version", "show", "s/2")["facts"]["jobs"]["train"]
    assert facts["resumed_from"] == sorted(whole)[-1:]


@pytest.mark.parametrize("moment", [*MOMENTS, *(pytest.param(one, marks=pytest.mark.slow) for one in MORE)])
def test_a_killed_daemon_takes_up_where_it_was(daemon: Daemon, undisturbed: Outcome, moment: str | int) -> None:
    daemon.cli("retrain", "s")
    daemon.wait(lambda: reached(daemon, moment), every_s=0.02)
    daemon.kill()
    daemon.start()
    finish(daemon)
    assert outcome(daemon) == undisturbed
    assert attempts_of_train(daemon) == 1


@pytest.mark.slow
def test_a_release_that_is_killed_with_the_daemon_goes_on_from_its_trunk(tmp_path: Path) -> None:
    prepared = home_with_a_batch(tmp_path, "--strategy", "rewarm-replay", "--set", "strategy.schedule=infinite")
    undisturbed = left_undisturbed(prepared, tmp_path / "undisturbed")
    with daemon_of_a_copy(prepared, tmp_path / "killed") as daemon:
        daemon.cli("retrain", "s")
        daemon.wait(lambda: running(daemon) == ["release"])
        daemon.kill()
        daemon.kill_jobs()
        daemon.start()
        finish(daemon)
        assert outcome(daemon) == undisturbed
        assert attempts_of_train(daemon) == 3


def running(daemon: Daemon) -> list[str]:
    return [one["name"] for one in daemon.json("job", "list") if one["state"] == "running"]


def reached(daemon: Daemon, moment: str | int) -> bool:
    if isinstance(moment, int):
        return daemon.training_step() >= moment
    kinds = {"measuring": "measure", "training": "train", "evaluating": "evaluate"}
    return daemon.newest_job() == (kinds[moment], False)


def finish(daemon: Daemon) -> None:
    daemon.wait(lambda: daemon.json("version", "show", "s@live")["number"] == 2)


def attempts_of_train(daemon: Daemon) -> int:
    database = Database.open(f"sqlite:///{daemon.home.database_path}")
    with database.read() as session:
        trained = select(Job.id).where(Job.kind == "train")
        return len(session.scalars(select(Attempt).where(Attempt.job_id.in_(trained))).all())


def outcome(daemon: Daemon) -> Outcome:
    """Read everything from disk and SQL again, verifying chains and bytes on the way."""
    database = Database.open(f"sqlite:///{daemon.home.database_path}")
    store = ArtifactStore(daemon.home.artifacts)
    with database.read() as session:
        assert chain.verify(session) == []
        newest = session.scalars(select(Version).where(Version.number == 2)).one()
        artifacts = session.scalars(select(VersionArtifact).where(VersionArtifact.version_id == newest.id)).all()
        for artifact in artifacts:
            verify_manifest(store, artifact.manifest_hash)
        rows = session.scalars(select(VersionBatch).where(VersionBatch.version_id == newest.id)).all()
        found: Any = session.scalars(select(Evaluation)).all()
        return Outcome(
            artifacts={one.role: one.manifest_hash for one in artifacts},
            rows={(one.batch_id, one.role): (one.rows, one.samples) for one in rows},
            batches={one.id: one.state for one in session.scalars(select(Batch))},
            versions={one.number: one.state for one in session.scalars(select(Version))},
            scores={(one.version_id, one.eval_set_id): one.value for one in found},
        )
