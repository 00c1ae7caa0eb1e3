"""What is published follows SQL, belongs to its version, and is looked after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from orchestrator.errors import Conflict
from orchestrator.flow import housekeeping, publication, records, registration, rollback
from orchestrator.service.commands import streams
from orchestrator.settings import StreamSettings
from storage import lineage, publishing
from storage.tables import Event, Job, Version
from tests.faces.rows import add_attempt
from tests.flow.harness import Daemon


def alerts(daemon: Daemon) -> list[str]:
    with daemon.app.database.read() as session:
        return list(session.scalars(select(Event.reason).where(Event.action == "alert")))


def live(daemon: Daemon) -> Version:
    with daemon.app.database.read() as session:
        found = lineage.live_version(session, records.stream_by_name(session, "s").id)
        assert found is not None
        return found


@pytest.mark.slow
def test_a_name_that_is_used_again_publishes_the_new_model(daemon: Daemon) -> None:
    daemon.add_stream()
    streams.remove(daemon.app, "s", purge=False, actor="test")
    folder = daemon.app.home.published / "s"
    assert [path.name for path in folder.iterdir()] == ["v1"]
    marker = folder / "v1" / ".rekindle.json"
    marker.unlink()
    marker.write_text(json.dumps({"format": 1, "manifests": ["0" * 64]}))
    daemon.add_stream()
    assert publication.is_ready(daemon.app, "s", 1)
    assert json.loads((daemon.live_folder() / ".rekindle.json").read_text())["manifests"] != ["0" * 64]


def test_a_sweep_repairs_the_link_and_a_folder_of_another_version_is_not_ready(daemon: Daemon) -> None:
    daemon.add_stream()
    folder = daemon.live_folder()
    (folder.parent / "live").unlink()
    (folder / ".rekindle.json").write_text(json.dumps({"format": 1, "manifests": ["0" * 64]}))
    assert not publication.is_ready(daemon.app, "s", 1)
    housekeeping._sweep(daemon.app)
    assert publication.is_ready(daemon.app, "s", 1)
    assert daemon.live_folder() == folder


def test_a_stream_that_cannot_be_published_is_an_alert_once_and_holds_up_no_other(daemon: Daemon) -> None:
    daemon.add_stream(name="a")
    daemon.add_stream()
    for name in ("a", "s"):
        shutil.rmtree(daemon.app.home.published / name)
    (daemon.app.home.published / "a").write_text("in the way")
    for _ in range(2):
        publication.repair(daemon.app)
    assert daemon.live_folder().name == "v1"
    assert len(alerts(daemon)) == 1


@pytest.mark.slow
def test_two_streams_do_not_share_a_folder(daemon: Daemon) -> None:
    daemon.add_stream()
    folder = daemon.live_folder()
    daemon.add_stream(name="other")
    with daemon.app.database.write() as session:
        other = records.stream_by_name(session, "other")
        revision = records.revision_of(session, other.id)
        values = {**revision.settings, "publish": {"directory": str(folder.parent), "keep_hours": 0}}
        revision.settings = StreamSettings.model_validate(values).model_dump(mode="json")
        other.created_at = revision.created_at = daemon.clock.now()
    publication.repair(daemon.app)
    publication.sweep(daemon.app)
    assert daemon.live_folder() == folder
    assert publication.is_ready(daemon.app, "s", 1)
    assert all("belongs to stream 's'" in reason for reason in alerts(daemon))
    assert alerts(daemon)


def test_a_directory_that_another_stream_publishes_to_is_refused_at_once(daemon: Daemon) -> None:
    daemon.add_stream()
    taken = {"directory": str(daemon.live_folder().parent)}
    with pytest.raises(Conflict, match="belongs to stream 's'"):
        daemon.add_stream(name="other", publish=taken)
    daemon.add_stream(name="third")
    with daemon.app.database.read() as session:
        third = records.stream_by_name(session, "third")
        values = records.settings_of(session, third.id).model_dump(mode="json") | {"publish": taken}
        since = records.revision_of(session, third.id).id
    with pytest.raises(Conflict, match="belongs to stream 's'"):
        registration.change_stream(
            daemon.app, "third", StreamSettings.model_validate(values), since=since, origins={}, actor="test"
        )
    with daemon.app.database.read() as session:
        assert [stream.name for stream in records.working_streams(session)] == ["s", "third"]
        assert records.revision_of(session, third.id).number == 1


def test_a_link_that_cannot_be_moved_is_an_alert_and_the_rollback_stands(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.add_stream(gate={"mode": "record"})
    daemon.ingest("omega psi")
    daemon.retrain("naive")
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "point_live", refuse)
        rollback.roll_back(daemon.app, "s", to=1, reason="worse", actor="test")
    assert live(daemon).number == 1
    assert daemon.live_folder().name == "v2"
    assert alerts(daemon) == ["the published models need attention: read-only file system"]
    housekeeping._sweep(daemon.app)
    assert daemon.live_folder().name == "v1"


def refuse(*_: object) -> None:
    raise OSError("read-only file system")


def test_damage_in_the_store_is_an_alert_that_names_the_version(daemon: Daemon) -> None:
    daemon.add_stream()
    with daemon.app.database.read() as session:
        artifacts = records.artifacts_of(session, live(daemon).id)
    housekeeping.scrub(daemon.app)
    assert alerts(daemon) == []
    path = daemon.app.store.path(artifacts["answer/model"])
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    housekeeping.scrub(daemon.app)
    assert [reason.split(":")[0] for reason in alerts(daemon)] == ["version s/1"]


def test_a_model_that_a_running_attempt_names_is_kept(daemon: Daemon, tmp_path: Path) -> None:
    daemon.add_stream()
    models = daemon.app.home.cache / "models"
    for name in ("named", "forgotten"):
        (models / name).mkdir(parents=True)
    (tmp_path / "job.json").write_text(json.dumps({"model": {"path": str(models / "named")}}))
    with daemon.app.database.write() as session:
        job = session.scalars(select(Job).limit(1)).one()
        job.state = "running"
        session.flush()
        add_attempt(session, job, str(tmp_path), number=9)
    assert "named" in housekeeping._wanted(daemon.app)
    assert "forgotten" not in housekeeping._wanted(daemon.app)
