"""Publish a model as an ordinary folder and point the ``live`` link at it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from storage.artifacts import ArtifactStore, Progress
from storage.errors import StorageError
from storage.files import fsync_dir

LIVE = "live"
MODEL_ROLE = "answer/model"


def publish(
    store: ArtifactStore,
    manifest_hashes: Mapping[str, str],
    directory: Path,
    name: str,
    *,
    progress: Progress | None = None,
) -> Path:
    """Build ``directory/name`` from a version's answer, role to manifest; the link is left alone.

    Where roles have a file in common, the model's own gives way, so an adapter's tokenizer stands in for the base's.

    Raises:
        ArtifactMissing: an object was collected or lost.
        ArtifactCorrupt: an object has another size than it should.
        StorageError: ``name`` cannot be a folder's name.
    """
    roles = sorted(manifest_hashes, key=lambda role: (role != MODEL_ROLE, role))
    names = [manifest_hashes[role] for role in roles]
    return store.materialise_all(names, directory / _plain(name), progress=progress)


def point_live(directory: Path, name: str) -> None:
    """Swap the ``live`` link to ``name`` in one step; readers see the old folder or the new one.

    Raises:
        StorageError: ``name`` is not published there.
    """
    if not (directory / _plain(name)).is_dir():
        raise StorageError(f"{directory / name} is not published; publish it first")
    if live_target(directory) == directory / name:
        return
    beside = directory / f".{LIVE}.{uuid.uuid4().hex}.tmp"
    try:
        os.symlink(name, beside)
        os.replace(beside, directory / LIVE)
        fsync_dir(directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def live_target(directory: Path) -> Path | None:
    """The folder that the ``live`` link points at, whether or not it is still there."""
    try:
        return directory / os.readlink(directory / LIVE)
    except OSError:
        return None


def prune(directory: Path, *, keep: Collection[str], older_than_s: float) -> list[str]:
    """Remove published folders that are neither kept nor live and have stood for ``older_than_s``; their names.

    A folder's age counts from the last time the ``live`` link moved or the folder was built, whichever is later.
    """
    if not directory.is_dir():
        return []
    live = live_target(directory)
    kept = {*keep, LIVE} if live is None else {*keep, LIVE, live.name}
    before = time.time() - older_than_s
    link = directory / LIVE
    moved = link.lstat().st_mtime if link.is_symlink() else 0.0
    doomed = [
        path
        for path in directory.iterdir()
        if path.is_dir() and path.name not in kept and max(moved, path.lstat().st_ctime) <= before
    ]
    for path in doomed:
        shutil.rmtree(path)
    return sorted(path.name for path in doomed)


def _plain(name: str) -> str:
    if name in ("", ".", "..", LIVE) or "/" in name or name.startswith("."):
        raise StorageError(f"{name!r} cannot be the name of a published folder; use a plain name such as v3")
    return name
