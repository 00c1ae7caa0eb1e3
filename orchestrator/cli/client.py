"""HTTP to the daemon with the standard library: quick to import, one connection a request, every wait bounded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.cli.base import OPTIONS
from orchestrator.errors import (
    BadInput,
    Conflict,
    Forbidden,
    GateRefused,
    NotFound,
    RekindleError,
    TooLarge,
    Unauthorised,
    Unavailable,
)
from orchestrator.home import Home
from orchestrator.service.names import VersionName

if TYPE_CHECKING:
    import http.client

TIMEOUT_S = 60.0
LONG_S = 3600.0
"""For requests that carry a file, or write one: ingest, export, backup."""
MAX_ANSWER_BYTES = 256 * 1024 * 1024
PIECE_BYTES = 256 * 1024
API = "/api/v1"
KINDS: dict[str, type[RekindleError]] = {
    kind.code: kind
    for kind in (BadInput, Conflict, Forbidden, GateRefused, NotFound, TooLarge, Unauthorised, Unavailable)
}
Query = Mapping[str, str | int | bool | None]


def get(path: str, **query: str | int | bool | None) -> Any:
    """Ask the daemon.

    Raises:
        RekindleError: what the daemon said, or that none answers.
    """
    return call("GET", path, query=query)


def post(path: str, body: Any = None, *, timeout_s: float = TIMEOUT_S, **query: str | int | bool | None) -> Any:
    """Have the daemon do something.

    Raises:
        RekindleError: what the daemon said, or that none answers.
    """
    return call("POST", path, query=query, body={} if body is None else body, timeout_s=timeout_s)


def call(method: str, path: str, *, query: Query | None = None, body: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
    """One request with a JSON body, or none."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": "application/json"}
    return _exchange(method, path, query or {}, data, headers, timeout_s)


def upload(path: str, file: Path, *, on_sent: Callable[[int], None], **query: str) -> Any:
    """Stream a file as the body of a request.

    Raises:
        BadInput: the file cannot be read.
        RekindleError: what the daemon said, or that none answers.
    """
    try:
        length = file.stat().st_size
        with file.open("rb") as opened:
            pieces = _pieces(opened.read, length, on_sent)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
            return _exchange("POST", path, query, pieces, headers, LONG_S)
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {file}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise BadInput(f"{file} cannot be read ({error.strerror})") from error


def part(name: str | int) -> str:
    """A name as part of a path."""
    if name == "":
        raise BadInput("the name is empty; give one")
    return quote(str(name), safe="")


def version_path(name: VersionName) -> str:
    """The path of a version."""
    return f"/streams/{part(name.stream)}/versions/{'live' if name.number is None else name.number}"


def url() -> str:
    """Where the daemon answers: REKINDLE_URL, or what the daemon of this home wrote down.

    Raises:
        Unavailable: no daemon serves this home.
    """
    chosen = os.environ.get("REKINDLE_URL")
    if chosen:
        return chosen.rstrip("/")
    home = OPTIONS.place
    try:
        found = json.loads(home.lock_file.read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"no daemon serves {home.root}; {_how_to_start(home)}") from error
    return str(found)


def token() -> str:
    """The caller's key: REKINDLE_TOKEN, or the file that the daemon wrote for its owner.

    Raises:
        Unauthorised: there is none.
    """
    chosen = os.environ.get("REKINDLE_TOKEN")
    if chosen:
        return chosen.strip()
    path = OPTIONS.place.token_file
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Unauthorised(f"no token: {path} cannot be read; set REKINDLE_TOKEN, or restart the daemon") from error


def _how_to_start(home: Home) -> str:
    return f"start one with `rekindle serve --home {home.root}`"


def _exchange(method: str, path: str, query: Query, body: Any, headers: dict[str, str], timeout_s: float) -> Any:
    import http.client

    base = urlsplit(url())
    if base.scheme not in ("http", "https") or not base.hostname:
        raise BadInput(f"REKINDLE_URL is {os.environ.get('REKINDLE_URL')!r}; write http://HOST:PORT")
    kind = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {token()}", "Accept": "application/json", **headers}
    connection = kind(base.hostname, base.port, timeout=timeout_s)
    try:
        _send(connection, method, f"{base.path}{API}{path}{_query(query)}", body, headers)
        answer = connection.getresponse()
        return _read(answer.status, answer.read(MAX_ANSWER_BYTES))
    except TimeoutError as error:
        raise Unavailable(f"the daemon at {base.geturl()} gave no answer in {timeout_s:.0f} s; see its log") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"no daemon answers at {base.geturl()}; {_how_to_start(OPTIONS.place)}") from error
    finally:
        connection.close()


def _send(connection: http.client.HTTPConnection, method: str, target: str, body: Any, headers: dict[str, str]) -> None:
    """Send it all, or as much as the daemon takes: one that refuses early has its answer ready by then."""
    connection.connect()
    try:
        connection.request(method, target, body=body, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        return


def _query(query: Query) -> str:
    given = {
        key: str(value).lower() if isinstance(value, bool) else value
        for key, value in query.items()
        if value is not None
    }
    return f"?{urlencode(given)}" if given else ""


def _read(status: int, data: bytes) -> Any:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Unavailable("the answer is not a Rekindle daemon's; check REKINDLE_URL") from error
    if status < 400:
        return value
    said = value.get("error") if isinstance(value, dict) else None
    if not isinstance(said, dict):
        raise Unavailable("the answer is not a Rekindle daemon's; check REKINDLE_URL")
    raise KINDS.get(str(said.get("code")), RekindleError)(str(said.get("message")))


def _pieces(read: Callable[[int], bytes], length: int, on_sent: Callable[[int], None]) -> Iterator[bytes]:
    """Exactly ``length`` bytes, whatever the file becomes meanwhile."""
    left = length
    while left > 0:
        piece = read(min(PIECE_BYTES, left))
        if not piece:
            raise BadInput("the file became shorter while it was sent; send it again")
        yield piece
        left -= len(piece)
        on_sent(len(piece))
