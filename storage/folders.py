"""What of a folder is stored: plain files, and the tensors of the model's safetensors files one by one."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from storage.errors import ArtifactRefused
from storage.files import read_json

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
MARKER = ".rekindle.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
MAX_FILES = 100_000
MAX_PATH = 512
_PUBLISHED_TENSOR = re.compile(r"tensor-\d{5,}\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Files to store whole, files to split into tensors, and what is left out; paths are relative."""

    folder: Path
    files: tuple[str, ...]
    split: tuple[str, ...]
    skipped: tuple[str, ...]


def survey(folder: Path, *, follow_links: bool) -> Contents:
    """Look through a folder. Hidden files and, beside a safetensors model, pickles are left out.

    Raises:
        ArtifactRefused: it is empty, holds links or devices, or its weights are pickles only.
    """
    paths = set(_walk(folder, follow_links=follow_links))
    pickles = {path for path in paths if path.lower().endswith(PICKLES)}
    if pickles and not any(path.endswith(".safetensors") for path in paths):
        raise ArtifactRefused(
            f"{folder} has no safetensors file but {min(pickles)}, and pickles are never stored or loaded; "
            "write the model with save_pretrained(…, safe_serialization=True)"
        )
    split, replaced = _weights(folder, paths)
    skipped = pickles | replaced
    files = sorted(paths - skipped - split)
    if not files and not split:
        raise ArtifactRefused(f"{folder} holds nothing to store")
    _check_names(folder, files, split)
    return Contents(
        folder=folder,
        files=tuple(files),
        split=tuple(sorted(split)),
        skipped=tuple(sorted(skipped - {INDEX})),
    )


def manifests_in(folder: Path) -> tuple[str, ...] | None:
    """The manifests that a folder was built from; None if it is a link, or nothing that was built here."""
    if folder.is_symlink():
        return None
    try:
        marker = read_json(folder / MARKER)
    except (OSError, ValueError):
        return None
    names = marker.get("manifests") if isinstance(marker, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else None


def open_file(folder: Path, path: str, *, follow_links: bool) -> BinaryIO:
    """Open a surveyed file; one that became a link in the meantime is refused.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | (0 if follow_links else os.O_NOFOLLOW)
    return os.fdopen(os.open(folder / path, flags), "rb", buffering=0)


def check_path(path: str) -> str:
    """A relative path that stays in its folder on any system.

    Raises:
        ArtifactRefused: it does not.
    """
    parts = PurePosixPath(path).parts
    safe = parts and not path.startswith("/") and ".." not in parts and str(PurePosixPath(path)) == path
    if not safe or len(path) > MAX_PATH or "\\" in path or not path.isprintable():
        raise ArtifactRefused(f"{path[:80]!r} cannot be the name of a stored file; rename it")
    return path


def _walk(folder: Path, *, follow_links: bool) -> Iterator[str]:
    if not folder.is_dir():
        raise ArtifactRefused(f"{folder} is not a folder")
    found = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*linked, *(name for name in names if not name.startswith("."))]):
            path = Path(parent) / name
            status = path.stat() if follow_links else path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactRefused(f"{path} is a link or no plain file; only plain files are stored")
            found += 1
            if found > MAX_FILES:
                raise ArtifactRefused(f"{folder} holds more than {MAX_FILES} files; give a model's own folder")
            yield check_path(path.relative_to(folder).as_posix())


def _weights(folder: Path, paths: set[str]) -> tuple[set[str], set[str]]:
    """Files to split, and files that those replace. A single file goes before shards, as from_pretrained has it."""
    shards = _shards(folder, paths) if INDEX in paths else set()
    replaced = {INDEX} & paths
    if MODEL in paths:
        return {MODEL}, replaced | (shards - {MODEL})
    return shards, replaced


def _shards(folder: Path, paths: set[str]) -> set[str]:
    try:
        names = set(read_json(folder / INDEX)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactRefused(f"{folder / INDEX} is not a safetensors index ({error}); save the model again") from error
    if missing := names - paths:
        raise ArtifactRefused(f"{folder / INDEX} names {sorted(map(str, missing))[0]}, which is not there; copy it too")
    return names


def _check_names(folder: Path, files: list[str], split: set[str]) -> None:
    """The names that a materialised folder gives to tensors are taken."""
    taken = [path for path in files if _PUBLISHED_TENSOR.fullmatch(path)] if split else []
    if taken:
        raise ArtifactRefused(f"{folder} has a model and, beside it, {taken[0]}; remove that or name it in the index")
