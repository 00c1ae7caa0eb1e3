"""Who may do what. The guard wraps the whole application, so that no route, socket or mount can be forgotten.

Everything needs a bearer token, except the exact request ``GET /healthz``. Host and Origin are checked before anything
else, on all methods: a browser page of another site, or of a name that was made to point here, gets nothing. There are
no cookies and no cross-origin headers. What a role may do stands beside each route in :mod:`orchestrator.rest`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from sqlalchemy import select
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.app import App
from orchestrator.errors import Forbidden, RekindleError, Unauthorised
from orchestrator.service.translate import ours
from storage import tokens
from storage.errors import StorageError
from storage.files import write_atomic
from storage.tables import Token

ROLES = ("reader", "operator", "admin")
"""Each may do what those before it may."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
AUTHENTICATORS = 8
"""Threads that look tokens up; long requests cannot starve them."""
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::[0-9]{1,5})?")
_BEARER = re.compile(r"[Bb]earer ([A-Za-z0-9._~+/=-]{1,512})")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whoever holds the token of this request."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether the caller's role includes ``role``."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Guard:
    """Pure ASGI middleware: Host, Origin, token; only then the application."""

    def __init__(self, app: ASGIApp, *, rekindle: App, allowed_hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._rekindle = rekindle
        self._hosts = frozenset(name.lower() for name in (*LOOPBACK, *map(_bracketed, allowed_hosts)))
        self._limiter: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            self._check_source(scope)
            if not _is_health(scope):
                scope["caller"] = await self._caller(scope)
        except RekindleError as error:
            await _refuse(send, error)
            return
        await self._app(scope, receive, send)

    def _check_source(self, scope: Scope) -> None:
        host = _only(scope, b"host")
        found = _HOST.fullmatch(host.lower()) if host is not None else None
        if host is None or found is None or found["name"] not in self._hosts:
            raise Forbidden(
                "the request's Host is not one of this daemon's; name it with --allowed-host if it should be"
            )
        for origin in _all(scope, b"origin"):
            if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
                raise Forbidden("requests from other sites are refused")
        if any(site not in ("same-origin", "none") for site in _all(scope, b"sec-fetch-site")):
            raise Forbidden("requests from other sites are refused")

    async def _caller(self, scope: Scope) -> Caller:
        header = _only(scope, b"authorization")
        found = _BEARER.fullmatch(header) if header is not None else None
        if found is None:
            raise Unauthorised(
                "a token is needed; set REKINDLE_TOKEN, or use the file HOME/token that the daemon wrote"
            )
        self._limiter = self._limiter or CapacityLimiter(AUTHENTICATORS)
        token = await to_thread.run_sync(self._look_up, found[1], limiter=self._limiter)
        if token is None:
            raise Unauthorised("the token is unknown, revoked or expired; `rekindle token create NAME` makes another")
        return Caller(name=token.name, role=token.role)

    def _look_up(self, secret: str) -> Token | None:
        try:
            with self._rekindle.database.read() as session:
                return tokens.check(session, secret)
        except StorageError as error:
            raise ours(error) from error


def ensure_token_file(app: App) -> None:
    """Write the local user's token, mode 0600, unless the one that is there still opens the door.

    Raises:
        OSError: the home cannot be written.
    """
    path = app.home.token_file
    with app.database.write() as session:
        if path.is_file() and tokens.check(session, path.read_text(encoding="utf-8").strip()) is not None:
            os.chmod(path, 0o600)
            return
        taken = set(session.scalars(select(Token.name).where(Token.name.like("local%"))))
        name = next(name for number in range(1, len(taken) + 2) if (name := f"local-{number}") not in taken)
        secret = tokens.create(session, name, "admin", None)
    write_atomic(path, f"{secret}\n".encode(), mode=0o600)


def _is_health(scope: Scope) -> bool:
    return scope["method"] == "GET" and scope["path"] == "/healthz" and not scope.get("root_path")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _only(scope: Scope, name: bytes) -> str | None:
    """The header's value; None where it is absent or, ambiguously, given twice."""
    found = _all(scope, name)
    return found[0] if len(found) == 1 else None


async def _refuse(send: Send, error: RekindleError) -> None:
    body = json.dumps({"error": {"code": error.code, "message": error.message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, Unauthorised):
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
