"""Build ordinary folders out of manifests: read-only hard links or copies, and an index that ``from_pretrained`` reads.

A tensor over which patches lie is put together and written, in each folder anew.

In a folder that holds a whole model and an adapter, the adapter's configuration names the folder itself as its base, so
that plain ``from_pretrained`` loads both. A bank of adapters, which no ``from_pretrained`` can read, has its model in a
folder of its own beneath, where none would take that model for the answer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import patches
from storage.errors import ArtifactCorrupt, ArtifactMissing, ArtifactRefused, ArtifactWriteFailed
from storage.files import CHUNK_BYTES, fsync_dir, read_json, sha256_file, write_json_atomic
from storage.folders import INDEX, MARKER, manifests_in

if TYPE_CHECKING:
    from storage.artifacts import ArtifactStore, Entry

ADAPTER = "adapter_config.json"
BANK = "router.json"
"""Marks a bank of adapters, beside which a model stands in the folder :data:`BASE`."""
BASE = "base"
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)
"""Why a hard link may be impossible where a copy is not."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a folder is built: by read-only links into the store or as copies, and what may stand there before."""

    copied: bool = False
    """Files of its own that anybody may write, so that nothing done to them reaches the store."""
    replace: bool = False
    """Take the place of a folder that was built here from other manifests."""


LINKED = Manner()


def build(store: ArtifactStore, names: Sequence[str], target: Path, manner: Manner = LINKED) -> Path:
    """See :meth:`storage.artifacts.ArtifactStore.materialise_all`."""
    files, indexes = _laid_out(store, names)
    if _is_whole(target, names, files, replace=manner.replace):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name[:64]}.{uuid.uuid4().hex}.tmp"
    try:
        _fill(store, temporary, files, manner)
        for path, index in indexes.items():
            write_json_atomic(temporary / path, index)
        if INDEX in indexes and ADAPTER in files:
            _point_adapter_at(target, temporary / ADAPTER)
        write_json_atomic(temporary / MARKER, {"format": 1, "manifests": list(names)})
        _put(temporary, target, names, files, replace=manner.replace)
    except OSError as error:
        raise ArtifactWriteFailed(f"{target} could not be built ({error}); see to the disk, try again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _laid_out(store: ArtifactStore, names: Sequence[str]) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Files by their path, and the indexes of models by theirs."""
    found = [store.read_manifest(name).entries for name in names]
    banks = [entries for entries in found if any(entry.path == BANK for entry in entries)]
    models = [entries for entries in found if entries not in banks]
    files, index = _layout(_merged(models))
    if not banks:
        return files, index
    below = {f"{BASE}/{path}": entry for path, entry in files.items()}
    above, _ = _layout(_merged(banks))
    return {**below, **above}, {f"{BASE}/{path}": one for path, one in index.items()}


def _merged(manifests: Iterable[Sequence[Entry]]) -> list[Entry]:
    merged: dict[tuple[str, str], Entry] = {}
    for entries in manifests:
        merged |= {(entry.kind, entry.path): entry for entry in entries}
    return [merged[key] for key in sorted(merged)]


def _layout(entries: Sequence[Entry]) -> tuple[dict[str, Entry], dict[str, Any]]:
    """File name to entry, and the index of the tensors among them, if there are any."""
    files: dict[str, Entry] = {}
    weight_map: dict[str, str] = {}
    for entry in entries:
        if entry.kind == "tensor":
            weight_map[entry.path] = f"tensor-{len(weight_map) + 1:05d}.safetensors"
        files[weight_map[entry.path] if entry.kind == "tensor" else entry.path] = entry
    total = sum(entry.tensor_bytes for entry in entries if entry.kind == "tensor")
    return files, {INDEX: {"metadata": {"total_size": total}, "weight_map": weight_map}} if weight_map else {}


def _is_whole(target: Path, names: Sequence[str], files: dict[str, Entry], *, replace: bool) -> bool:
    """Whether ``target`` is this folder already. One of ours with damage is built again; anything else is refused."""
    if not (target.exists() or target.is_symlink()):
        return False
    found = manifests_in(target)
    if found is None or (found != tuple(names) and not replace):
        raise ArtifactRefused(f"{target} holds something else; name another folder or remove it")
    sizes = all(_size(target / path) == entry.bytes for path, entry in files.items() if path != ADAPTER)
    return found == tuple(names) and sizes


def _point_adapter_at(base: Path, config: Path) -> None:
    try:
        settings = {**read_json(config), "base_model_name_or_path": str(base.absolute())}
    except (ValueError, TypeError) as error:
        raise ArtifactRefused(f"the adapter's {ADAPTER} is not JSON ({error}); train the version again") from error
    write_json_atomic(config, settings)


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def _fill(store: ArtifactStore, folder: Path, files: dict[str, Entry], manner: Manner) -> None:
    folder.mkdir()
    made = {folder}
    for path, entry in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        made |= {parent for parent in place.parents if parent.is_relative_to(folder)}
        source = store.path(entry.object_hash)
        if entry.patches:
            _write_patched(store, place, entry, mode=0o644 if manner.copied else 0o444)
        elif manner.copied:
            _copy(source, place, entry, mode=0o644)
        else:
            _link_or_copy(source, place, entry)
    for parent in sorted(made, reverse=True):
        fsync_dir(parent)


def _link_or_copy(source: Path, place: Path, entry: Entry) -> None:
    if source.stat().st_size != entry.bytes:
        raise ArtifactCorrupt(f"object {entry.object_hash} is not {entry.bytes} bytes long; restore it from a backup")
    try:
        os.link(source, place)
    except FileNotFoundError as error:
        raise ArtifactMissing(
            f"object {entry.object_hash} was collected meanwhile; restore it from a backup"
        ) from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _copy(source, place, entry, mode=0o444)


def _write_patched(store: ArtifactStore, place: Path, entry: Entry, *, mode: int) -> None:
    _, data = patches.read(store.objects, entry.object_hash, entry.patches)
    with place.open("xb") as file:
        file.write(data.data)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _copy(source: Path, place: Path, entry: Entry, *, mode: int) -> None:
    with source.open("rb") as original, place.open("xb") as copy:
        shutil.copyfileobj(original, copy, CHUNK_BYTES)
        copy.flush()
        os.fchmod(copy.fileno(), mode)
        os.fsync(copy.fileno())
    if sha256_file(place) != entry.object_hash:
        raise ArtifactCorrupt(f"object {entry.object_hash} was changed on disk; restore it from a backup")


def _put(temporary: Path, target: Path, names: Sequence[str], files: dict[str, Entry], *, replace: bool) -> None:
    """Rename into place; an old folder of ours makes room, one that another process finished meanwhile stays."""
    fsync_dir(temporary)
    try:
        os.rename(temporary, target)
    except OSError:
        if _is_whole(target, names, files, replace=replace):
            return
        damaged = temporary.with_suffix(".old")
        os.rename(target, damaged)
        os.rename(temporary, target)
        with contextlib.suppress(OSError):
            shutil.rmtree(damaged)
    fsync_dir(target.parent)
