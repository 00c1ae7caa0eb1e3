"""The artifact store: objects named by the sha256 of their bytes, written once, read-only, and nothing of SQL.

A manifest is a folder: an object of JSON that lists its files and, for a model, one object a tensor, or patches over
one of an earlier model. Objects are written beside, synced, renamed, their folders synced, and read back: after a power
cut an object is whole or absent.
Nothing here unpickles; what would have to be is not stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from storage import folders, patches, safetensors
from storage.errors import ArtifactCorrupt, ArtifactMissing, ArtifactRefused
from storage.objects import CHUNK_BYTES, Adding, Chunks, Objects, Stored
from storage.patches import Patch, Span, Stayed

FORMAT = 1
PATCHED_FORMAT = 2
"""Of a manifest that has patches, which a Rekindle that knows only :data:`FORMAT` would leave out."""

__all__ = ["ArtifactStore", "Entry", "ManifestRecord", "Stored"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file (kind ``file``, path relative to the folder) or tensor (kind ``tensor``, path is its name)."""

    kind: str
    path: str
    object_hash: str
    bytes: int
    tensor_bytes: int = 0
    """Of a tensor: its bytes without the file's header."""
    patches: tuple[Patch, ...] = ()
    """Of a tensor: what is laid over the object, in this order."""


@dataclass(frozen=True, kw_only=True)
class ManifestRecord:
    """A stored folder. ``bytes`` is what the folder takes, ``stored_bytes`` the size of the manifest's own object."""

    hash: str
    bytes: int
    entries: tuple[Entry, ...]
    stored_bytes: int
    skipped: tuple[str, ...] = ()
    """Files of the folder that were left out: pickles and weights that from_pretrained would not read."""


class ArtifactStore:
    """A folder of objects that many processes may read and add to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = Objects(root)

    def add_bytes(self, data: bytes) -> Stored:
        """Store bytes.

        Raises:
            ArtifactWriteFailed: the disk did not take them.
        """
        with self.objects.adding() as adding:
            return adding.add(lambda: [data])

    def add_file(self, path: Path) -> Stored:
        """Store a copy of a file.

        Raises:
            ArtifactWriteFailed: the disk did not take it, or the file cannot be read.
        """
        with self.objects.adding() as adding:
            return adding.add(partial(_read_file, path.parent, path.name, follow_links=True))

    def add_folder(self, folder: Path, stayed: Stayed | None = None) -> ManifestRecord:
        """Store a folder: the model's safetensors (whole or in shards) a tensor each, every other file as it is.

        Of a tensor of which spans ``stayed``, only the others are stored, over what the earlier model has; a tensor of
        which that is not so, or whose earlier one cannot be read, is stored whole.

        Raises:
            ArtifactRefused: it is empty, has links or broken safetensors, or its weights are pickles only.
            ArtifactWriteFailed: the disk did not take it.
        """
        return self._add(folders.survey(folder, follow_links=False), follow_links=False, stayed=stayed)

    def add_model_folder(self, folder: Path) -> ManifestRecord:
        """Store a model that the user named; links to files are followed, because a hub cache is made of them.

        Raises:
            ArtifactRefused: as :meth:`add_folder`, or there is no config.json.
            ArtifactWriteFailed: the disk did not take it.
        """
        if not (folder / "config.json").is_file():
            raise ArtifactRefused(f"{folder} is not a model: it has no config.json")
        return self._add(folders.survey(folder, follow_links=True), follow_links=True)

    def _add(self, contents: folders.Contents, *, follow_links: bool, stayed: Stayed | None = None) -> ManifestRecord:
        entries: list[Entry] = []
        earlier = {} if stayed is None else self._earlier(stayed)
        with self.objects.adding() as adding:
            for path in contents.files:
                chunks = partial(_read_file, contents.folder, path, follow_links=follow_links)
                stored = adding.add(chunks)
                entries.append(Entry(kind="file", path=path, object_hash=stored.hash, bytes=stored.bytes))
            for path in contents.split:
                for tensor in _tensors(contents.folder, path, follow_links=follow_links):
                    chunks = partial(_tensor_file, contents.folder, path, tensor, follow_links=follow_links)
                    before = earlier.get(tensor.name)
                    patched = before and self._add_patches(adding, tensor, chunks, *before)
                    entries.append(patched or _add_tensor(adding, tensor, chunks))
        return self._add_manifest(entries, contents.skipped)

    def _earlier(self, stayed: Stayed) -> dict[str, tuple[Entry, Sequence[Span]]]:
        """Entries of the tensors of which spans stayed; none of a manifest that cannot be read."""
        tensors: dict[str, Entry] = {}
        for name in stayed.manifests:
            with contextlib.suppress(ArtifactMissing, ArtifactCorrupt):
                tensors |= {entry.path: entry for entry in self.read_manifest(name).entries if entry.kind == "tensor"}
        return {name: (tensors[name], spans) for name, spans in stayed.spans.items() if name in tensors}

    def _add_patches(
        self, adding: Adding, tensor: safetensors.Tensor, chunks: Chunks, entry: Entry, spans: Sequence[Span]
    ) -> Entry | None:
        """A tensor as what moved of it over an earlier one; None where it has to be stored whole, or may as well."""
        try:
            before = patches.read(self.objects, entry.object_hash, entry.patches)
        except (ArtifactMissing, ArtifactCorrupt):
            return None
        files = patches.moved(tensor, chunks, before, spans)
        if files is None:
            return None
        made = []
        for span, file in files.items():
            stored = adding.add(partial(iter, (file,)))
            made.append(Patch(span=span, object_hash=stored.hash, bytes=stored.bytes))
        laid = patches.laid_over(entry.patches, made)
        return replace(entry, patches=laid) if sum(one.bytes for one in laid) < entry.bytes else None

    def _add_manifest(self, entries: list[Entry], skipped: tuple[str, ...]) -> ManifestRecord:
        entries.sort(key=lambda entry: (entry.kind, entry.path))
        for first, second in pairwise(entries):
            if (first.kind, first.path) == (second.kind, second.path):
                raise ArtifactRefused(f"tensor {first.path!r} stands in two shards; save the model again")
        data = _encode(entries)
        stored = self.add_bytes(data)
        return _record(stored.hash, entries, stored_bytes=stored.bytes, skipped=skipped)

    def has(self, name: str) -> bool:
        """Whether an object is there."""
        return self.objects.place(name).is_file()

    def path(self, name: str) -> Path:
        """The read-only file of an object.

        Raises:
            ArtifactMissing: it is not there.
        """
        return self.objects.path(name)

    def read_manifest(self, name: str) -> ManifestRecord:
        """Read and check a manifest.

        Raises:
            ArtifactMissing: it is not there.
            ArtifactCorrupt: its bytes changed.
            ArtifactRefused: it is no manifest, or of a newer format.
        """
        data = self.path(name).read_bytes()
        if hashlib.sha256(data).hexdigest() != name:
            raise ArtifactCorrupt(f"manifest {name} was changed on disk; restore it from a backup")
        return _record(name, _decode(name, data), stored_bytes=len(data), skipped=())

    def verify(self, name: str) -> None:
        """Read one object again.

        Raises:
            ArtifactMissing: it is not there.
            ArtifactCorrupt: its bytes changed.
        """
        self.objects.verify(name)

    def materialise(self, name: str, target: Path) -> Path:
        """Build the folder of a manifest at ``target``, whole or not at all; one that is there already is kept.

        Raises:
            ArtifactMissing: an object is not there.
            ArtifactCorrupt: the manifest changed, or an object has another size.
            ArtifactRefused: something else stands at ``target``.
        """
        return self.materialise_all([name], target)

    def materialise_all(self, names: Sequence[str], target: Path, *, replace: bool = False) -> Path:
        """Like :meth:`materialise`, several manifests in one folder; files of later ones replace those of earlier.

        With ``replace`` it takes the place of a folder that was built here from other manifests.
        """
        from storage import building

        return building.build(self, names, target, building.Manner(replace=replace))

    def copy_out(self, name: str, target: Path) -> Path:
        """Like :meth:`materialise`, but copies that share nothing with the store and may be written to.

        Raises:
            As :meth:`materialise`, and ArtifactCorrupt for any byte that changed.
        """
        from storage import building

        return building.build(self, [name], target, building.Manner(copied=True))


def _read_file(folder: Path, path: str, *, follow_links: bool) -> Iterator[bytes]:
    with folders.open_file(folder, path, follow_links=follow_links) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _tensors(folder: Path, path: str, *, follow_links: bool) -> list[safetensors.Tensor]:
    with folders.open_file(folder, path, follow_links=follow_links) as file:
        return safetensors.read_header(file, folder / path)


def _add_tensor(adding: Adding, tensor: safetensors.Tensor, chunks: Chunks) -> Entry:
    stored = adding.add(chunks)
    return Entry(
        kind="tensor", path=tensor.name, object_hash=stored.hash, bytes=stored.bytes, tensor_bytes=tensor.length
    )


def _tensor_file(folder: Path, path: str, tensor: safetensors.Tensor, *, follow_links: bool) -> Iterator[bytes]:
    yield tensor.header()
    with folders.open_file(folder, path, follow_links=follow_links) as file:
        yield from safetensors.read_range(file, tensor.start, tensor.length, CHUNK_BYTES)


def _encode(entries: list[Entry]) -> bytes:
    known = PATCHED_FORMAT if any(entry.patches for entry in entries) else FORMAT
    document = {"format": known, "entries": [_row(entry) for entry in entries]}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": entry.kind, "path": entry.path, "object": entry.object_hash, "bytes": entry.bytes
    }  # fmt: skip
    if entry.kind == "tensor":
        row["tensor_bytes"] = entry.tensor_bytes
    if entry.patches:
        row["patches"] = [
            {"span": [one.span.dim, one.span.start, one.span.stop], "object": one.object_hash, "bytes": one.bytes}
            for one in entry.patches
        ]
    return row


def _decode(name: str, data: bytes) -> list[Entry]:
    try:
        document = json.loads(data)
        found, rows = document["format"], document["entries"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactRefused(f"object {name} is not a manifest") from error
    if found not in (FORMAT, PATCHED_FORMAT):
        raise ArtifactRefused(
            f"manifest {name} has format {found}, this Rekindle reads up to {PATCHED_FORMAT}; use a newer one"
        )
    return [
        Entry(
            kind=row["kind"],
            path=folders.check_path(row["path"]) if row["kind"] == "file" else row["path"],
            object_hash=row["object"],
            bytes=row["bytes"],
            tensor_bytes=row.get("tensor_bytes", 0),
            patches=tuple(
                Patch(span=Span(*one["span"]), object_hash=one["object"], bytes=one["bytes"])
                for one in row.get("patches", ())
            ),
        )
        for row in rows
    ]


def _record(name: str, entries: Sequence[Entry], *, stored_bytes: int, skipped: tuple[str, ...]) -> ManifestRecord:
    return ManifestRecord(
        hash=name,
        bytes=sum(entry.bytes for entry in entries),
        entries=tuple(entries),
        stored_bytes=stored_bytes,
        skipped=skipped,
    )
