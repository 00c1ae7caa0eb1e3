"""Nobody gets in without a key: every route, every way of not having one, every hostile source."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import stat
from datetime import timedelta

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import Message

from orchestrator import auth
from orchestrator.rest import routes
from storage import tokens
from storage.database import now
from storage.tables import Event, Stream
from tests.faces.face import Face

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECTX")
HOSTILE = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "localhost:7433:1"},
    {"Host": "LOCALHOST."},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


def all_routes(face: Face) -> list[tuple[str, str]]:
    """Method and concrete path of everything that is registered, OpenAPI included."""
    found = []
    for route in face.api.routes:
        assert isinstance(route, Route)
        path = re.sub(r"\{[^}]*\}", "1", route.path)
        found += [(method, path) for method in sorted(methods_of(route) - {"HEAD"})]
    return found


def methods_of(route: Route) -> set[str]:
    """Methods that a route answers to."""
    assert route.methods is not None
    return route.methods


def keys(face: Face) -> dict[str, str | None]:
    """Every way of not having a key."""
    revoked = face.new_token("admin", "revoked")
    expired = face.new_token("admin", "expired", expires_at=now() - timedelta(seconds=1))
    with face.app.database.write() as session:
        tokens.revoke(session, "revoked")
    return {
        "none": None,
        "wrong": "rk_wrong",
        "revoked": revoked,
        "expired": expired,
        "cut": face.token[:-1],
        "odd": "é\t",
    }


def test_every_route_refuses_every_caller_without_a_valid_token(face: Face) -> None:
    wrong = keys(face)
    listed = all_routes(face)
    assert len(listed) > 40
    for method, path in listed:
        for kind, token in wrong.items():
            status, _ = face.call(method, path, token=token, body={})
            expected = 200 if path == "/healthz" else 401
            assert status == expected, (method, path, kind)


def test_every_route_is_in_the_literal_list_with_its_role(face: Face) -> None:
    listed = {(route.method, f"/api/v1{route.path}") for route in (*routes.ROUTES, routes.UPLOAD)}
    listed |= {("GET", "/healthz"), ("GET", "/metrics")}
    registered = {
        (m, route.path) for route in face.api.routes if isinstance(route, APIRoute) for m in methods_of(route)
    }
    assert registered == listed
    assert all(route.role in auth.ROLES for route in (*routes.ROUTES, routes.UPLOAD, routes.METRICS))


@pytest.mark.parametrize(
    "path",
    ["/healthz/", "//healthz", "/healthz/x", "/healthz;x", "/HEALTHZ", "/api/v1/healthz", "/x/healthz", "/%68ealthz/"],
)
def test_only_the_exact_health_path_is_open(face: Face, path: str) -> None:
    assert face.call("GET", path, token=None)[0] == 401


@pytest.mark.parametrize("method", [method for method in METHODS if method != "GET"])
def test_health_is_open_to_get_alone(face: Face, method: str) -> None:
    assert face.call(method, "/healthz", token=None)[0] == 401


def test_health_says_only_ok(face: Face) -> None:
    assert face.call("GET", "/healthz", token=None) == (200, "ok")


@pytest.mark.parametrize("headers", HOSTILE, ids=lambda one: "=".join(*one.items()))
def test_a_hostile_source_changes_nothing_whatever_the_method(face: Face, headers: dict[str, str]) -> None:
    for method in METHODS:
        for path in ("/healthz", "/api/v1/streams", "/api/v1/tokens", "/api/v1/gc"):
            for content in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                body = {"name": "x", "role": "admin"}
                status, _ = face.call(method, path, body=body, **headers, **{"Content-Type": content})
                assert status in (400, 403), (method, path, content)
    with face.app.database.read() as session:
        assert session.query(Stream).count() == 0
        assert session.query(Event).count() == 0
        assert tokens.check(session, face.token) is not None


def test_two_hosts_or_two_keys_are_ambiguous_and_refused(face: Face) -> None:
    for extra in (
        f"Host: 127.0.0.1:{face.port}\r\nHost: evil",
        f"Host: 127.0.0.1\r\nAuthorization: Bearer {face.token}",
    ):
        with socket.create_connection(("127.0.0.1", face.port), timeout=10) as raw:
            key = f"Authorization: Bearer {face.token}"
            raw.sendall(f"GET /api/v1/streams HTTP/1.1\r\n{key}\r\n{extra}\r\nConnection: close\r\n\r\n".encode())
            assert re.match(rb"HTTP/1.1 40[013] ", raw.recv(100))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LocalHost"])
def test_loopback_names_are_served(face: Face, host: str) -> None:
    assert face.call("GET", "/api/v1/streams", Host=f"{host}:{face.port}")[0] == 200


def test_a_page_of_the_daemon_itself_is_served(face: Face) -> None:
    host = f"localhost:{face.port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert face.call("GET", "/api/v1/streams", **headers)[0] == 200


def test_no_answer_invites_other_sites_or_sets_a_cookie(face: Face) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", face.port, timeout=10)
    connection.request("GET", "/api/v1/streams", headers={"Authorization": f"Bearer {face.token}"})
    answer = connection.getresponse()
    names = {name.lower() for name, _ in answer.getheaders()}
    connection.close()
    assert not names & {"access-control-allow-origin", "set-cookie", "access-control-allow-credentials"}


def test_each_role_may_do_what_the_list_says_and_no_more(face: Face) -> None:
    secrets = {role: face.new_token(role) for role in auth.ROLES}
    for route in (*routes.ROUTES, routes.UPLOAD):
        path = "/api/v1" + re.sub(r"\{[^}]*\}", "1", route.path)
        for role, secret in secrets.items():
            status, _ = face.call(route.method, path, token=secret, body=b"[]")
            allowed = auth.ROLES.index(role) >= auth.ROLES.index(route.role)
            assert (status != 403) == allowed, (route.method, route.path, role)


@pytest.mark.parametrize("kind", ["websocket", "webtransport"])
def test_nothing_but_http_gets_through_even_with_a_token(face: Face, kind: str) -> None:
    async def behind(*_: object) -> None:
        raise AssertionError("the guard let it through")

    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the guard read on")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {face.token}".encode())]
    scope = {"type": kind, "path": "/healthz", "method": "GET", "headers": headers}
    asyncio.run(auth.Guard(behind, rekindle=face.app)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_revoked_token_is_refused_at_once(face: Face) -> None:
    secret = face.new_token("reader", "ci")
    assert face.call("GET", "/api/v1/streams", token=secret)[0] == 200
    assert face.rekindle("token", "revoke", "ci").code == 0
    assert face.call("GET", "/api/v1/streams", token=secret)[0] == 401


def test_the_token_file_is_private_and_kept_while_it_opens_the_door(face: Face) -> None:
    path = face.app.home.token_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    auth.ensure_token_file(face.app)
    assert path.read_text() == before


def test_a_lost_or_foreign_token_file_is_written_anew(face: Face) -> None:
    path = face.app.home.token_file
    path.write_text("rk_from_somewhere_else\n")
    path.chmod(0o644)
    auth.ensure_token_file(face.app)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert face.call("GET", "/api/v1/daemon", token=path.read_text().strip())[0] == 200


def test_no_secret_is_in_the_database(face: Face) -> None:
    made = face.data("token", "create", "ci", "--role", "reader", "--expires", "30d")
    database = face.app.database.path
    assert database is not None
    stored = database.read_bytes()
    assert made["secret"].encode() not in stored
    assert face.token.encode() not in stored
    assert "secret" not in face.data("token", "list")[0]
