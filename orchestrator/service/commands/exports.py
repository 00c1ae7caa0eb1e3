"""Exports: a version as a plain Hugging Face folder that no longer needs Rekindle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, RekindleError, Unavailable
from orchestrator.flow import records
from orchestrator.service.names import VersionName
from orchestrator.service.records import ExportRecord
from orchestrator.service.views import common
from orchestrator.service.views.versions import artifacts_of
from orchestrator.settings import StreamSettings
from storage import events
from storage.files import write_json_atomic
from storage.tables import Version

MODEL, ADAPTER = "answer/model", "answer/adapter"
MERGE_TIMEOUT_S = 1800


def export(app: App, name: VersionName, directory: Path, *, as_adapter: bool, actor: str) -> ExportRecord:
    """Write a version to a new folder; an adapter is merged into its base unless it is wanted by itself.

    The files are the user's own: copies, which share nothing with the store.

    Raises:
        NotFound: no such stream or version.
        BadInput: the folder's path is not absolute.
        Conflict: the folder holds something already, or the version has no adapter.
    """
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        version = common.find_version(session, stream, name.number)
        artifacts = artifacts_of(session, version.id)
        settings = records.settings_of(session, stream.id)
    _check_target(directory)
    named = f"{stream.name}/{version.number}"
    form = _write(app, artifacts, directory, as_adapter=as_adapter, settings=settings, name=named)
    _remember(app, version, directory, form=form, actor=actor)
    files = sum(1 for path in directory.rglob("*") if path.is_file())
    return ExportRecord(stream=stream.name, version=version.number, directory=str(directory), form=form, files=files)


def _check_target(directory: Path) -> None:
    if not directory.is_absolute():
        raise BadInput(f"{directory} is not absolute; the daemon has a working folder of its own")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"{directory} is there already and not empty; choose another folder")


def _write(
    app: App, artifacts: dict[str, str], directory: Path, *, as_adapter: bool, settings: StreamSettings, name: str
) -> str:
    adapter = artifacts.get(ADAPTER)
    if as_adapter and adapter is None:
        raise Conflict(f"{name} has no adapter; export it without --as-adapter")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        if directory.exists():
            directory.rmdir()
        if adapter is None:
            app.store.copy_out(artifacts[MODEL], directory)
            return "model"
        if as_adapter:
            app.store.copy_out(adapter, directory)
            return "adapter"
        _merge(app, model=artifacts[MODEL], adapter=adapter, directory=directory, settings=settings)
    except OSError as error:
        raise Unavailable(f"{directory} cannot be written ({error.strerror or error}); choose another") from error
    return "merged model"


def _merge(app: App, *, model: str, adapter: str, directory: Path, settings: StreamSettings) -> None:
    """Merging needs torch, so it happens in a process of its own."""
    work = Path(tempfile.mkdtemp(prefix="merge-", dir=app.home.cache))
    try:
        spec = {
            "model": str(app.store.materialise(model, work / "model")),
            "adapter": str(app.store.materialise(adapter, work / "adapter")),
            "task": settings.task,
            "trust_remote_code": settings.trust_remote_code,
            "folder": str(directory),
        }
        write_json_atomic(work / "merge.json", spec)
        argv = [sys.executable, "-P", "-m", "strategies.inference", str(work / "merge.json")]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=MERGE_TIMEOUT_S, check=False, env=_environment(), cwd=work
        )
    except subprocess.TimeoutExpired as error:
        raise RekindleError(f"merging took longer than {MERGE_TIMEOUT_S} s; export it with --as-adapter") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RekindleError(f"the adapter could not be merged: {said}")


def _environment() -> dict[str, str]:
    """What the merging process may know: no secrets of the daemon, and no GPU."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "HF_HOME") if name in os.environ}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _remember(app: App, version: Version, directory: Path, *, form: str, actor: str) -> None:
    with app.database.write() as session:
        events.record(
            session,
            stream_id=version.stream_id,
            subject="version",
            subject_id=version.id,
            action="exported",
            actor=actor,
            reason="asked for",
            details={"directory": str(directory), "form": form},
        )
