"""Write-once files named by their sha256: the lowest layer of the artifact store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from storage.errors import ArtifactCorrupt, ArtifactMissing, ArtifactRefused, ArtifactWriteFailed, StorageError
from storage.files import WRITE_ATTEMPTS, fsync_dir, sha256_file

CHUNK_BYTES = 4 << 20
SEALING = 8
"""Files that may wait for the disk at once."""
Chunks = Callable[[], Iterable[bytes]]
"""Gives the same bytes each time it is called."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object of the store."""

    hash: str
    bytes: int


class Objects:
    """``objects/ab/ab…`` and a folder for files that are still being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._temporary = root / "tmp"
        for folder in (self._objects, self._temporary):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def place(self, name: str) -> Path:
        """Where an object stands, or would stand.

        Raises:
            StorageError: not a sha256.
        """
        if not _HASH.fullmatch(name):
            raise StorageError(f"{name[:80]!r} is not a sha256 in lower-case hexadecimal")
        return self._objects / name[:2] / name

    def path(self, name: str) -> Path:
        """The file of an object.

        Raises:
            ArtifactMissing: it is not there.
        """
        path = self.place(name)
        if not path.is_file():
            raise ArtifactMissing(f"object {name} is not in {self.root}; restore it from a backup, or it was collected")
        return path

    def verify(self, name: str) -> None:
        """Read an object again.

        Raises:
            ArtifactMissing: it is not there.
            ArtifactCorrupt: its bytes changed.
        """
        path = self.path(name)
        if sha256_file(path) != name:
            raise ArtifactCorrupt(f"object {name} was changed on disk ({path}); restore it from a backup")

    def list(self) -> Iterator[tuple[Stored, float]]:
        """Every object with the time it was last asked for, in seconds since the epoch."""
        for folder in sorted(self._objects.iterdir()):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _HASH.fullmatch(entry.name):
                        status = entry.stat(follow_symlinks=False)
                        yield Stored(hash=entry.name, bytes=status.st_size), status.st_mtime

    @contextlib.contextmanager
    def adding(self) -> Iterator[Adding]:
        """Add objects; at the end all of them are durable and read back, or none that is new is left."""
        adding = Adding(self)
        try:
            yield adding
            adding.finish()
        except BaseException as error:
            adding.undo()
            if isinstance(error, OSError):
                raise ArtifactWriteFailed(f"{self.root} did not take the bytes ({error}); see to the disk") from error
            raise

    def temporary(self) -> Path:
        """A new name beside the objects, on the same file system."""
        return self._temporary / uuid.uuid4().hex

    def remove(self, name: str, *, untouched_since: float) -> bool:
        """Delete an object that nobody asked for after ``untouched_since``; whether it was deleted.

        It is first taken out of sight: an adder that comes later finds nothing and writes it anew; one that came
        before left a newer time on it, and then it is put back.
        """
        aside = self.temporary()
        try:
            os.rename(self.place(name), aside)
        except FileNotFoundError:
            return False
        if aside.stat().st_mtime > untouched_since:
            os.rename(aside, self.place(name))
            return False
        aside.unlink()
        return True

    def remove_temporary(self, *, untouched_since: float) -> None:
        """Delete what writers that died left behind."""
        for path in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= untouched_since:
                    path.unlink()

    def folder_for(self, name: str) -> tuple[Path, bool]:
        """The folder of an object and whether it had to be made."""
        folder = self.place(name).parent
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return folder, False
        return folder, True


@dataclass(frozen=True, kw_only=True)
class _Written:
    """A file beside the objects, whole but perhaps not on the disk yet."""

    stored: Stored
    temporary: Path
    file: BinaryIO


class Adding:
    """Objects on their way into the store; see :meth:`Objects.adding`. One is synced while the next is written."""

    def __init__(self, store: Objects) -> None:
        self._store = store
        self._folders: set[Path] = set()
        self._new: dict[str, Path] = {}
        self._all: dict[str, Path] = {}
        self._sealer = ThreadPoolExecutor(1)
        self._sealing: deque[tuple[_Written, Chunks, Future[None]]] = deque()

    def add(self, chunks: Chunks) -> Stored:
        """Write one object, or find that it is there. It may be used once the adding is finished.

        Raises:
            OSError: the disk did not take this object or an earlier one.
        """
        stored = self._start(chunks)
        while len(self._sealing) > SEALING:
            self._settle()
        return stored

    def _start(self, chunks: Chunks) -> Stored:
        temporary = self._store.temporary()
        file = temporary.open("xb", buffering=0)
        try:
            written = _Written(stored=_write_hashed(chunks(), file), temporary=temporary, file=file)
        except BaseException:
            _discard(temporary, file)
            raise
        self._sealing.append((written, chunks, self._sealer.submit(self._seal, written)))
        return written.stored

    def _settle(self) -> None:
        """Wait for the oldest; a sync that fails is answered with a new file, never repeated on the same one."""
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            written, chunks, sealing = self._sealing.popleft()
            try:
                sealing.result()
            except OSError:
                if attempt == WRITE_ATTEMPTS:
                    raise
                if self._start(chunks) != written.stored:
                    raise ArtifactRefused(
                        "a file changed while it was stored; wait until nothing writes to it"
                    ) from None
                self._sealing.rotate(1)
            else:
                return

    def _seal(self, written: _Written) -> None:
        name, file = written.stored.hash, written.file
        try:
            place = self._store.place(name)
            folder, made = self._store.folder_for(name)
            self._folders |= {folder, folder.parent} if made else {folder}
            if not _freshen(place, written.stored.bytes):
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
                os.replace(written.temporary, place)
                self._new[name] = place
            self._all[name] = place
        finally:
            _discard(written.temporary, file)

    def finish(self) -> None:
        """Make the names durable, then read the new objects back.

        Raises:
            OSError: the disk failed.
            ArtifactWriteFailed: it gave back other bytes than it took.
        """
        while self._sealing:
            self._settle()
        self._sealer.shutdown()
        for folder in sorted(self._folders):
            fsync_dir(folder)
        for name, place in self._new.items():
            if sha256_file(place) != name:
                raise ArtifactWriteFailed(f"the disk gave back other bytes than it took for object {name}; see to it")
        for place in self._all.values():
            os.utime(place)

    def undo(self) -> None:
        """Take back what is new."""
        self._sealer.shutdown(cancel_futures=True)
        for written, _, _ in self._sealing:
            _discard(written.temporary, written.file)
        for place in self._new.values():
            with contextlib.suppress(OSError):
                place.unlink()


def _discard(temporary: Path, file: BinaryIO) -> None:
    file.close()
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()


def _freshen(place: Path, size: int) -> bool:
    """Whether the object is there and whole; its new time tells gc that somebody wants it."""
    try:
        os.utime(place)
        return place.stat().st_size == size
    except FileNotFoundError:
        return False


def _write_hashed(chunks: Iterable[bytes], file: BinaryIO) -> Stored:
    """Write on this thread while another one hashes."""
    digest = hashlib.sha256()
    size = 0
    with ThreadPoolExecutor(1) as pool:
        for chunk in chunks:
            hashing = pool.submit(digest.update, chunk) if len(chunk) >= CHUNK_BYTES // 4 else None
            _write_all(file, chunk)
            size += len(chunk)
            if hashing is None:
                digest.update(chunk)
            else:
                hashing.result()
    return Stored(hash=digest.hexdigest(), bytes=size)


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]
