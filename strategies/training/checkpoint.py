"""Checkpoints: asynchronous, atomic, verified, without pickle.

A checkpoint is a folder ``step-N`` that is complete or absent: files are written beside, synced, listed with their
sha256 in ``manifest.json``, and the folder is renamed into place. Reading verifies every byte and falls back to the
newest sound one, also in the directories of earlier attempts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from storage.files import fsync_dir, sha256_file
from strategies.errors import StrategyError
from strategies.settings import Json

FORMAT = 1
KEEP = 2
STATE = "state.json"
MANIFEST = "manifest.json"
_NAME = re.compile(r"^step-(\d+)$")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that a run is: JSON values, and tensors in named groups (weights, optimizer, random, consumed …)."""

    step: int
    values: Json
    groups: Mapping[str, Mapping[str, Tensor]]


class CheckpointStore:
    """Writes to ``folder`` in a thread of its own, one checkpoint at a time; reads there and in ``earlier``.

    ``fingerprint`` names what is trained; a checkpoint of another training is not used.
    """

    def __init__(self, folder: Path, *, fingerprint: str, earlier: Sequence[Path] = (), say: Say) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.earlier = tuple(earlier)
        self._say = say
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None
        self.newest: int | None = None

    @property
    def busy(self) -> bool:
        """Whether the checkpoint before is still being written."""
        return self._writer is not None and self._writer.is_alive()

    def save(self, checkpoint: Checkpoint) -> None:
        """Start writing; tensors must not change until it is done. Raises what the write before ended with."""
        self.wait()
        self._writer = threading.Thread(target=self._write_safely, args=(checkpoint,), name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Until the checkpoint is on disk."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise StrategyError(f"a checkpoint could not be written to {self.folder}: {error}") from error

    def load(self) -> Checkpoint | None:
        """The newest sound checkpoint of this training, or None."""
        for path in self._candidates():
            try:
                found = _read(path, self.fingerprint)
            except (OSError, ValueError, KeyError) as error:
                self._say(f"checkpoint {path.name} in {path.parent} is not used: {error}")
                continue
            self.newest = found.step
            return found
        return None

    def _candidates(self) -> list[Path]:
        found = [path for folder in (self.folder, *self.earlier) if folder.is_dir() for path in folder.iterdir()]
        return sorted((path for path in found if _step(path) is not None), key=lambda path: -(_step(path) or 0))

    def _write_safely(self, checkpoint: Checkpoint) -> None:
        try:
            _write(self.folder, checkpoint, self.fingerprint)
            self.newest = checkpoint.step
            self._prune()
        except BaseException as error:
            self._error = error

    def _prune(self) -> None:
        mine = [path for path in self.folder.iterdir() if _step(path) is not None]
        for path in sorted(mine, key=lambda path: _step(path) or 0)[:-KEEP]:
            shutil.rmtree(path, ignore_errors=True)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy in main memory that training cannot change any more."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _step(path: Path) -> int | None:
    match = _NAME.match(path.name)
    return int(match.group(1)) if match else None


def _write(folder: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".step-{checkpoint.step}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name, tensors in checkpoint.groups.items():
        save_file(dict(tensors), beside / f"{name}.safetensors")
    head = {"format": FORMAT, "fingerprint": fingerprint, "step": checkpoint.step, "values": checkpoint.values}
    (beside / STATE).write_text(json.dumps(head))
    files = {path.name: _sync(path) for path in sorted(beside.iterdir())}
    (beside / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": files}))
    _sync(beside / MANIFEST)
    fsync_dir(beside)
    final = folder / f"step-{checkpoint.step}"
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    fsync_dir(folder)


def _read(path: Path, fingerprint: str) -> Checkpoint:
    manifest = json.loads((path / MANIFEST).read_bytes())
    for name, sha256 in manifest["sha256"].items():
        if sha256_file(path / name) != sha256:
            raise ValueError(f"{name} does not have the sha256 it was written with")
    head = json.loads((path / STATE).read_bytes())
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']} is unknown")
    if head["fingerprint"] != fingerprint:
        raise ValueError("it belongs to another training")
    names = [name for name in manifest["sha256"] if name.endswith(".safetensors")]
    groups = {name.removesuffix(".safetensors"): load_file(path / name) for name in names}
    return Checkpoint(step=int(head["step"]), values=head["values"], groups=groups)


def _sync(path: Path) -> str:
    """Put a file on the disk; returns its sha256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256_file(path)
