"""Publish a model as an ordinary folder and point the ``live`` link at it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from storage.artifacts import ArtifactStore
from storage.errors import StorageError
from storage.files import fsync_dir
from storage.folders import manifests_in

LIVE = "live"
MODEL_ROLE = "answer/model"
Folder = tuple[str, tuple[str, ...]]
"""A published folder: its name and the manifests that it was built from."""
_VERSION = re.compile(r"v\d+")


def publish(store: ArtifactStore, manifest_hashes: Mapping[str, str], directory: Path, name: str) -> Path:
    """Build ``directory/name`` from a version's answer, role to manifest; the link is left alone.

    Where roles have a file in common, the model's own gives way, so an adapter's tokenizer stands in for the base's.
    A folder that was published under this name for another version makes room.

    Raises:
        ArtifactMissing: an object was collected or lost.
        ArtifactCorrupt: an object has another size than it should.
        ArtifactRefused: something that was not published here stands there.
        StorageError: ``name`` cannot be a folder's name.
    """
    return store.materialise_all(in_order(manifest_hashes), directory / _plain(name), replace=True)


def in_order(manifest_hashes: Mapping[str, str]) -> tuple[str, ...]:
    """The manifests of an answer as a published folder names them, the model's own first."""
    return tuple(manifest_hashes[role] for role in sorted(manifest_hashes, key=lambda role: (role != MODEL_ROLE, role)))


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


def prune(directory: Path, *, own: Collection[Folder], older_than_s: float) -> list[str]:
    """Remove those of one's ``own`` folders that are not live and have stood for ``older_than_s``; their names.

    A folder's age counts from the last time the ``live`` link moved or the folder was built, whichever is later.
    What was not published here, or for others, is left alone.
    """
    live = live_target(directory)
    link = directory / LIVE
    moved = link.lstat().st_mtime if link.is_symlink() else 0.0
    before = time.time() - older_than_s
    doomed = [
        path
        for path in _published(directory, own)
        if (live is None or path.name != live.name) and max(moved, path.lstat().st_ctime) <= before
    ]
    for path in doomed:
        shutil.rmtree(path)
    return sorted(path.name for path in doomed)


def withdraw(directory: Path, *, own: Collection[Folder], folders: bool) -> None:
    """Remove the ``live`` link to one of one's ``own`` folders or to one that is gone; with ``folders`` those too."""
    published = _published(directory, own)
    live = live_target(directory)
    if live is not None and (live in published or (_VERSION.fullmatch(live.name) and not live.exists())):
        (directory / LIVE).unlink(missing_ok=True)
        fsync_dir(directory)
    for path in published if folders else ():
        shutil.rmtree(path)


def _published(directory: Path, own: Collection[Folder]) -> list[Path]:
    """The real folders in ``directory`` that are named like a version's and were built from that version."""
    if not directory.is_dir():
        return []
    named = [path for path in directory.iterdir() if _VERSION.fullmatch(path.name)]
    return [path for path in named if (found := manifests_in(path)) is not None and (path.name, found) in own]


def _plain(name: str) -> str:
    if name in ("", ".", "..", LIVE) or "/" in name or name.startswith("."):
        raise StorageError(f"{name!r} cannot be the name of a published folder; use a plain name such as v3")
    return name
