"""Exports: a version as a plain Hugging Face folder that no longer needs Rekindle."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, RekindleError, Unavailable
from orchestrator.service.names import VersionName
from orchestrator.service.records import ExportRecord
from orchestrator.service.views import common
from orchestrator.service.views.versions import artifacts_of
from storage import events
from storage.tables import Version

MODEL, ADAPTER = "answer/model", "answer/adapter"
MERGE_TIMEOUT_S = 1800


def export(app: App, name: VersionName, directory: Path, *, as_adapter: bool, actor: str) -> ExportRecord:
    """Write a version to a new folder; an adapter is merged into its base unless it is wanted by itself.

    Raises:
        NotFound: no such stream or version.
        BadInput: the folder's path is not absolute.
        Conflict: the folder holds something already, or the version has no adapter.
    """
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        version = common.find_version(session, stream, name.number)
        artifacts = artifacts_of(session, version.id)
    _check_target(directory)
    form = _write(app, artifacts, directory, as_adapter=as_adapter, name=f"{stream.name}/{version.number}")
    _remember(app, version, directory, form=form, actor=actor)
    files = sum(1 for path in directory.rglob("*") if path.is_file())
    return ExportRecord(stream=stream.name, version=version.number, directory=str(directory), form=form, files=files)


def _check_target(directory: Path) -> None:
    if not directory.is_absolute():
        raise BadInput(f"{directory} is not absolute; the daemon has a working folder of its own")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"{directory} is there already and not empty; choose another folder")


def _write(app: App, artifacts: dict[str, str], directory: Path, *, as_adapter: bool, name: str) -> str:
    adapter = artifacts.get(ADAPTER)
    if as_adapter and adapter is None:
        raise Conflict(f"{name} has no adapter; export it without --as-adapter")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        if directory.exists():
            directory.rmdir()
        if adapter is None:
            app.store.materialise(artifacts[MODEL], directory)
            return "model"
        if as_adapter:
            app.store.materialise(adapter, directory)
            return "adapter"
        _merge(app, model=artifacts[MODEL], adapter=adapter, directory=directory)
    except OSError as error:
        raise Unavailable(
            f"{directory} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    return "merged model"


def _merge(app: App, *, model: str, adapter: str, directory: Path) -> None:
    """Merging needs torch, so it happens in a process of its own, beside the target, and appears there at once."""
    work = Path(tempfile.mkdtemp(prefix="merge-", dir=app.home.cache))
    try:
        base = app.store.materialise(model, work / "model")
        added = app.store.materialise(adapter, work / "adapter")
        argv = [sys.executable, "-P", "-m", "strategies.inference.export", str(base), str(added), str(directory)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=MERGE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RekindleError(
            f"merging the adapter took longer than {MERGE_TIMEOUT_S} s; export it with --as-adapter"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RekindleError(f"the adapter could not be merged: {said}")


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
