"""Where files come from: a path, a folder, a glob, an fsspec URL, a Hugging Face dataset; and watching one of these.

A file is offered once it has stood still (size and time of change, or etag) for the settle time, seen on the monotonic
clock, so that a slow writer or a clock jump does no harm. What has been offered and dealt with is remembered in a small
cache file by its fingerprint; losing it costs a hash of each file, never a second batch.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from orchestrator.errors import BadInput, Unavailable
from orchestrator.ingest import readers, spool
from orchestrator.ingest.records import Kind, Refused, escape
from orchestrator.ingest.spool import Fetched
from storage import files

MAX_FILES = 100_000
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")
CARD = "readme.md"
"""The page of a dataset on the hub."""


class Found(NamedTuple):
    """A file at a source; ``fingerprint`` changes when its content does."""

    name: str
    location: str
    fingerprint: str
    bytes: int


def find(uri: str) -> list[Found]:
    """The files at ``uri``, by name: one file, those of a folder, those that match a glob.

    Raises:
        BadInput: nothing can be there: a bad URL, or an extra that is not installed.
        Unavailable: the source cannot be reached now.
    """
    if "://" in uri and not uri.startswith("file://"):
        return _find_remote(uri)
    try:
        return _find_local(uri.removeprefix("file://"))
    except OSError as error:
        raise Unavailable(f"cannot list {escape(uri)} ({error.strerror}); check it, it is tried again") from error


def fetch(found: Found, folder: Path, *, max_bytes: int) -> Fetched:
    """Copy a found file into ``folder``.

    Raises:
        BadInput, Refused, Unavailable: see :mod:`orchestrator.ingest.spool`.
    """
    if "://" not in found.location:
        return spool.fetch_local(Path(found.location), folder, name=found.name, max_bytes=max_bytes)
    system, path = _remote(found.location)
    try:
        with system.open(path, "rb") as source:
            return spool.fetch_stream(cast("BinaryIO", source), folder, name=found.name, max_bytes=max_bytes)
    except Refused:
        raise
    except Exception as error:
        # fsspec's systems raise errors of their own libraries.
        raise Unavailable(f"cannot fetch {escape(found.location)} ({escape(str(error))}); try again later") from error


def fetch_all(
    path: str | Path | Sequence[Path], folder: Path, *, name: str, kind: Kind, max_bytes: int
) -> list[Fetched]:
    """Copy what ``path`` names into ``folder``; a data batch is one file, under ``name``.

    Raises:
        BadInput: there is no such file, or there are several where one is needed.
    """
    if isinstance(path, Path):
        return [spool.fetch_local(path, folder, name=_file_name(name, path, kind), max_bytes=max_bytes)]
    if not isinstance(path, str):
        return [spool.fetch_local(one, folder, name=one.name, max_bytes=max_bytes) for one in sorted(path)]
    found = find(path)
    if not found:
        raise BadInput(f"there is no file at {escape(path)}; check the path")
    if kind == "data" and len(found) > 1:
        raise BadInput(f"{escape(path)} names {len(found)} files; ingest them one by one")
    if kind == "data":
        found = [found[0]._replace(name=name)]
    return [fetch(one, folder, max_bytes=max_bytes) for one in found]


def _file_name(name: str, path: Path, kind: Kind) -> str:
    return name if kind == "data" else path.name


def _find_local(pattern: str) -> list[Found]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        paths: Iterable[str] = (entry.path for entry in os.scandir(path) if not entry.is_dir())
        root = path
    elif os.path.lexists(path):
        paths, root = (str(path),), path.parent
    else:
        paths = glob.iglob(str(path), recursive=True)
        root = _fixed_part(path)
    found = (_local(Path(one), root) for one in itertools.islice(_wanted(paths), MAX_FILES + 1))
    return _bounded([one for one in found if one is not None], pattern)


def _fixed_part(pattern: Path) -> Path:
    parts = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)
    return Path(*parts)


def _wanted(paths: Iterable[str]) -> Iterable[str]:
    return (path for path in paths if not Path(path).name.startswith(".") and not path.endswith(UNFINISHED))


def _local(path: Path, root: Path) -> Found | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    return Found(name, str(path.absolute()), f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}", status.st_size)


def _bounded(found: list[Found], uri: str) -> list[Found]:
    if len(found) > MAX_FILES:
        raise BadInput(f"{escape(uri)} has more than {MAX_FILES} files; narrow the glob or join the files")
    return sorted(found)


def _find_remote(uri: str) -> list[Found]:
    system, path = _remote(uri)
    try:
        listed = _listing(system, path, uri)
    except Exception as error:
        raise Unavailable(f"cannot list {escape(uri)} ({escape(str(error))}); check it, it is tried again") from error
    protocol = uri.split("://", 1)[0]
    return _bounded([_remote_file(protocol, path, details) for details in listed if details["type"] == "file"], uri)


def _listing(system: Any, path: str, uri: str) -> list[dict[str, Any]]:
    if glob.has_magic(path):
        listed = list(system.glob(path, detail=True).values())
    elif system.isdir(path):
        listed = list(system.find(path, detail=True).values())
    else:
        listed = [system.info(path)]
    if uri.startswith("hf://"):
        listed = [details for details in listed if _is_data(details["name"])]
    return [details for details in listed if list(_wanted((details["name"],)))]


def _is_data(name: str) -> bool:
    """A dataset's repository holds other things too; scripts and pickles among them are never read."""
    return readers.knows(name) and PurePosixPath(name).name.lower() != CARD


def _remote_file(protocol: str, root: str, details: dict[str, Any]) -> Found:
    path = details["name"]
    stamps = ("ETag", "etag", "blob_id", "LastModified", "last_modified", "mtime", "created")
    stamp = next((str(details[key]) for key in stamps if details.get(key)), "")
    size = int(details.get("size") or 0)
    location = path if "://" in path else f"{protocol}://{path}"
    return Found(path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1], location, f"{size}:{stamp}", size)


def _remote(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except ImportError as error:
        raise BadInput(
            f"{escape(uri)} needs a package that is not installed ({escape(str(error))}); {_hint(uri)}"
        ) from None
    except (ValueError, TypeError) as error:
        raise BadInput(f"{escape(uri)} is not a URL that can be read ({escape(str(error))})") from None
    return system, path


def _hint(uri: str) -> str:
    if uri.startswith("hf://"):
        return "install it with: pip install 'rekindle[train]'"
    return "install the fsspec package of that protocol"


class Watcher:
    """Looks at a source again and again, and offers each file once it stands still."""

    def __init__(self, uri: str, *, settle_s: float, cache: Path, monotonic: Callable[[], float]) -> None:
        self._uri = uri
        self._settle_s = settle_s
        self._cache = cache
        self._monotonic = monotonic
        self._seen: dict[str, tuple[str, float]] = {}
        self._done = _read_cache(cache, uri)

    def poll(self) -> list[Found]:
        """The files that are new or changed and have settled.

        Raises:
            BadInput, Unavailable: see :func:`find`.
        """
        found = [one for one in find(self._uri) if self._done.get(one.location) != one.fingerprint]
        at = self._monotonic()
        before, self._seen = self._seen, {}
        for one in found:
            fingerprint, since = before.get(one.location, ("", at))
            self._seen[one.location] = (one.fingerprint, since if fingerprint == one.fingerprint else at)
        return [one for one in found if at - self._seen[one.location][1] >= self._settle_s]

    def done(self, found: Found) -> None:
        """Do not offer this file again until it changes."""
        self._done[found.location] = found.fingerprint
        while len(self._done) > MAX_FILES:
            del self._done[next(iter(self._done))]
        # On a full disk it is remembered in memory, and may be lost.
        with contextlib.suppress(OSError):
            files.write_json_atomic(self._cache, {"format": 1, "uri": self._uri, "done": self._done})


def _read_cache(path: Path, uri: str) -> dict[str, str]:
    try:
        stored = json.loads(path.read_text())
        done = stored["done"] if stored["uri"] == uri else {}
        return {str(name): str(fingerprint) for name, fingerprint in done.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
