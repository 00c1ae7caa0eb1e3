"""Exports: a version as a folder that no longer needs Rekindle: a plain Hugging Face model, or a bank of adapters."""

from __future__ import annotations

import json
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
from strategies.contract.graph import ADAPTER, BANK, MODEL

TIMEOUT_S = 1800
ROUTING = ("router.json", "head.safetensors")
"""What of a bank goes along with its plain adapters: which classes each has, and the head that they share."""
ADAPTERS_README = """# Adapters of {name}

Each folder here is an ordinary PEFT adapter: {adapters}. For a server that routes by itself: put one on the base
model, which stands as `base/` in what `rekindle version export {name} DIR` writes.

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base, {last!r})
```

`router.json` says which adapter (by its place among `adapters`) owns which class. For classes, a text's feature is its
pooled hidden state after layer normalisation without weights, and `head.safetensors` has a row a class, in the order of
`labels`.
"""


def export(app: App, name: VersionName, directory: Path, *, as_adapter: bool, actor: str) -> ExportRecord:
    """Write a version to a new folder; an adapter is merged into its base unless it is wanted by itself.

    A bank of adapters becomes a folder that routes by itself, or plain adapters, a folder each.

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
    adapter, bank = artifacts.get(ADAPTER), artifacts.get(BANK)
    if as_adapter and adapter is None and bank is None:
        raise Conflict(f"{name} has no adapter; export it without --as-adapter")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        if directory.exists():
            directory.rmdir()
        if as_adapter and bank is not None:
            return _plain_adapters(app, bank, directory, name)
        if as_adapter and adapter is not None:
            app.store.copy_out(adapter, directory)
            return "adapter"
        if adapter is None and bank is None:
            app.store.copy_out(artifacts[MODEL], directory)
            return "model"
        _make(app, artifacts, directory, settings)
    except OSError as error:
        raise Unavailable(f"{directory} cannot be written ({error.strerror or error}); choose another") from error
    return "merged model" if bank is None else "bank"


def _plain_adapters(app: App, bank: str, directory: Path, name: str) -> str:
    """The adapters of a bank as PEFT has them, and what a server needs that routes by itself."""
    with tempfile.TemporaryDirectory(prefix="export-", dir=app.home.cache) as work:
        whole = app.store.copy_out(bank, Path(work) / "bank")
        shutil.copytree(whole / "adapters", directory)
        for file in ROUTING:
            if (whole / file).exists():
                shutil.copyfile(whole / file, directory / file)
    names = [one["name"] for one in json.loads((directory / ROUTING[0]).read_bytes())["adapters"]]
    readme = ADAPTERS_README.format(name=name, adapters=", ".join(names), last=str(directory / names[-1]))
    (directory / "README.md").write_text(readme)
    return f"{len(names)} adapter{'s' if len(names) > 1 else ''}"


def _make(app: App, artifacts: dict[str, str], directory: Path, settings: StreamSettings) -> None:
    """What stands on a base needs torch to be exported, so that happens in a process of its own."""
    work = Path(tempfile.mkdtemp(prefix="export-", dir=app.home.cache))
    try:
        parts = {
            key: str(app.store.materialise(artifacts[role], work / key))
            for key, role in (("model", MODEL), ("adapter", ADAPTER), ("bank", BANK))
            if role in artifacts
        }
        spec = {
            **parts,
            "task": settings.task,
            "trust_remote_code": settings.trust_remote_code,
            "folder": str(directory),
        }
        write_json_atomic(work / "export.json", spec)
        argv = [sys.executable, "-P", "-m", "strategies.inference", str(work / "export.json")]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=_environment(), cwd=work
        )
    except subprocess.TimeoutExpired as error:
        raise RekindleError(f"the export took longer than {TIMEOUT_S} s; export it with --as-adapter") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if done.returncode != 0:
        # Another export may have filled the folder meanwhile.
        _check_target(directory)
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RekindleError(f"the version could not be exported: {said}")


def _environment() -> dict[str, str]:
    """What the exporting process may know: no secrets of the daemon, and no GPU."""
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
