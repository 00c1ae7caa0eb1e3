"""REST by itself: uploads, limits, pages, batches, triggers, jobs and their errors."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from orchestrator.rest import limits, uploads
from storage import tokens
from storage.tables import Batch, Event, Job, Trigger
from tests.faces.face import Face
from tests.faces.rows import add_attempt, add_batch, add_job, add_stream


def stream(face: Face, **settings: Any) -> None:
    with face.app.database.write() as session:
        add_stream(session, **settings)


def push(face: Face, body: bytes, filename: str = "a.jsonl") -> tuple[int, dict[str, Any]]:
    return face.call("POST", f"/api/v1/streams/news/batches?filename={filename}", body=body)


def test_a_push_is_taken_in_and_the_spool_left_empty(face: Face) -> None:
    stream(face)
    lines = b"".join(b'{"text": "document number %d says something else"}\n' % n for n in range(20))
    status, said = push(face, lines)
    assert (status, said["outcome"], said["documents"]) == (200, "accepted", 20)
    assert list(face.app.home.spool.glob("push-*")) == []
    assert push(face, lines)[1]["outcome"] == "copy"


def test_a_push_over_the_cap_is_refused_and_leaves_nothing(face: Face) -> None:
    stream(face, limits={"max_file_bytes": 1000})
    status, said = push(face, b"x" * 5000)
    assert (status, said["error"]["code"]) == (413, "too_large")
    assert list(face.app.home.spool.glob("push-*")) == []


@pytest.mark.parametrize("name", ["..", ".", "a%2Fb.jsonl", "..%2F..%2Fetc%2Fpasswd", "a%0Ab.jsonl", "%1B%5B31m.txt"])
def test_a_file_name_cannot_lead_out_of_the_spool(face: Face, name: str) -> None:
    stream(face)
    assert push(face, b"{}", name)[0] == 422


def test_a_stream_that_is_not_there_yet_takes_no_data(face: Face) -> None:
    stream(face, state="registering")
    status, said = push(face, b"{}")
    assert (status, "takes no data" in said["error"]["message"]) == (409, True)


def test_a_refused_file_exits_with_one(face: Face, tmp_path: Path) -> None:
    stream(face)
    (tmp_path / "bad.parquet").write_bytes(b"this is no parquet file")
    done = face.rekindle("ingest", "news", str(tmp_path / "bad.parquet"))
    assert done.code == 1
    assert "bad.parquet" in done.error


def test_a_large_body_is_refused_before_it_is_read(face: Face) -> None:
    status, said = face.call("POST", "/api/v1/tokens", body=b"[" + b"1," * limits.MAX_BODY_BYTES)
    assert (status, said["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"reason": 1}', b'{"reason": "x", "more": 1}', b'{"reason": " "}']
)
def test_a_wrong_body_is_one_line_and_changes_nothing(face: Face, body: bytes) -> None:
    stream(face)
    with face.app.database.write() as session:
        add_batch(session)
    status, said = face.call("POST", "/api/v1/batches/1/hold", body=body)
    assert (status, said["error"]["code"]) == (422, "bad_input")
    with face.app.database.read() as session:
        assert session.get_one(Batch, 1).state == "pending"


def test_lists_come_in_pages_of_the_newest_oldest_first(face: Face) -> None:
    stream(face)
    with face.app.database.write() as session:
        for number in range(1, 8):
            add_batch(session, number=number)
    assert [row["id"] for row in face.call("GET", "/api/v1/batches?limit=3")[1]] == [5, 6, 7]
    assert [row["id"] for row in face.call("GET", "/api/v1/batches?limit=3&before=5")[1]] == [2, 3, 4]
    assert face.call("GET", "/api/v1/batches?limit=100000")[0] == 422
    done = face.rekindle("batch", "list", "--limit", "3")
    assert "--before 5" in done.err


def test_a_held_batch_is_released_with_its_refusals_forgotten(face: Face) -> None:
    stream(face)
    with face.app.database.write() as session:
        add_batch(session)
    held = face.data("batch", "hold", "1", "--reason", "the crawler broke")
    assert (held["state"], held["reason"]) == ("held", "the crawler broke")
    assert face.rekindle("batch", "hold", "1", "--reason", "again").code == 1
    released = face.data("batch", "release", "1")
    assert (released["state"], released["reason"], released["refusals"]) == ("pending", None, 0)
    with face.app.database.read() as session:
        actors = {event.actor for event in session.query(Event)}
    assert actors == {"token:local-1"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("batch", "release", "1"),
        ("batch", "show", "99"),
        ("job", "show", "99"),
        ("job", "retry", "1"),
        ("decision", "show", "99"),
        ("version", "show", "news/9"),
        ("version", "show", "nothing"),
        ("trigger", "pause", "news"),
        ("stream", "resume", "news"),
        ("stream", "show", "health"),
        ("retrain", "news"),
        ("rollback", "news", "--reason", "x"),
        ("token", "revoke", "nobody"),
        ("stream", "release-batches", "news", "--batch", "1"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_one_line_and_exits_with_one(face: Face, arguments: tuple[str, ...]) -> None:
    stream(face)
    with face.app.database.write() as session:
        add_batch(session)
        add_job(session, state="queued")
    done = face.rekindle(*arguments)
    assert done.code == 1, done.err
    assert done.error
    assert done.out == ""


def test_triggers_are_paused_resumed_and_tried(face: Face) -> None:
    face.add_stream("news", "--no-wait", "--cron", "0 3 * * *", "--set", "timezone=Europe/Zurich")
    (paused,) = face.data("trigger", "pause", "news")
    assert (paused["state"], paused["next_fire"]) == ("paused", None)
    (resumed,) = face.data("trigger", "resume", "news", "cron")
    assert resumed["state"] == "active"
    (tried,) = face.data("trigger", "test", "news")
    assert (tried["retrain"], tried["reason"]) == (False, "no new data is pending")
    assert len(tried["next_fires"]) == 5
    with face.app.database.read() as session:
        assert session.query(Trigger).one().state == "active"


def test_a_job_is_cancelled_while_it_waits(face: Face) -> None:
    stream(face)
    with face.app.database.write() as session:
        add_job(session)
    assert face.data("job", "cancel", "1")["state"] == "cancelled"
    with face.app.database.read() as session:
        assert session.get_one(Job, 1).state == "cancelled"


def test_a_log_is_read_piece_by_piece_without_breaking_characters(
    face: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.service.views import jobs as views

    monkeypatch.setattr(views, "LOG_PIECE_BYTES", 7)
    text = "größe 漢字 🔥 \x1b[31mred\n" * 5
    (tmp_path / "job.log").write_text(text)
    stream(face)
    with face.app.database.write() as session:
        add_attempt(session, add_job(session, state="succeeded"), str(tmp_path), state="succeeded")
    assert face.data("job", "logs", "1")["text"] == text
    shown = face.rekindle("job", "logs", "1").out
    assert "\x1b" not in shown
    assert "漢字 🔥" in shown


def test_tokens_are_made_listed_and_revoked(face: Face) -> None:
    made = face.rekindle("token", "create", "ci", "--role", "reader")
    with face.app.database.read() as session:
        token = tokens.check(session, made.out.strip())
        assert token is not None
        assert token.role == "reader"
    assert face.rekindle("token", "create", "ci").code == 1
    assert face.rekindle("token", "create", "x", "--role", "king").code == 2
    assert {one["name"] for one in face.data("token", "list")} == {"ci", "local-1"}


def test_a_smaller_role_is_told_which_it_needs(face: Face) -> None:
    done = face.rekindle("gc", REKINDLE_TOKEN=face.new_token("operator"))
    assert done.code == 1
    assert "this needs a token with role admin" in done.error


def test_the_description_names_every_route_with_its_role(face: Face) -> None:
    described = face.call("GET", "/api/v1/openapi.json")[1]
    operations = [one for path in described["paths"].values() for one in path.values()]
    assert len(operations) > 40
    assert all(one["x-role"] in ("nobody", "reader", "operator", "admin") for one in operations)


def test_a_failure_of_the_daemon_is_one_line_without_its_insides(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.service.views import streams as views

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(views, "list_streams", broken)
    done = face.rekindle("stream", "list")
    assert done.code == 1
    assert "hunter2" not in done.err
    assert re.search(r"daemon\.log says why", done.error)


@pytest.mark.parametrize(
    ("module", "path"), [("uploads", "/api/v1/streams/news/batches?filename=a.jsonl"), ("limits", "/api/v1/gc")]
)
def test_a_body_that_stalls_is_given_up(face: Face, monkeypatch: pytest.MonkeyPatch, module: str, path: str) -> None:
    monkeypatch.setattr(f"orchestrator.rest.{module}.STALL_S", 0.3)
    stream(face)
    with socket.create_connection(("127.0.0.1", face.port), timeout=20) as raw:
        key = f"Host: 127.0.0.1\r\nAuthorization: Bearer {face.token}\r\nContent-Type: application/json"
        raw.sendall(f"POST {path} HTTP/1.1\r\n{key}\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert re.match(rb"HTTP/1.1 4(08|22) ", raw.recv(100))
    assert list(face.app.home.spool.glob("push-*")) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(face)
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("orchestrator.ingest.run.tempfile.NamedTemporaryFile", full)
    status, said = push(face, b'{"text": "words"}')
    assert (status, said["error"]["code"]) == (503, "unavailable")
    assert "free space at" in said["error"]["message"]
    assert list(face.app.home.spool.glob("push-*")) == []


def test_a_push_that_the_disk_does_not_take_is_one_line(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(face)
    exceeded = Mock(side_effect=OSError(errno.EDQUOT, "Quota exceeded"))
    monkeypatch.setattr("orchestrator.rest.uploads.tempfile.mkdtemp", exceeded)
    status, said = push(face, b'{"text": "words"}')
    assert (status, "the disk is full" in said["error"]["message"]) == (503, True)


def test_a_push_needs_room_for_itself_and_a_little_more(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(face)
    usage = Mock(return_value=Mock(total=10**15, free=uploads.FREE_BYTES + 10))
    monkeypatch.setattr("orchestrator.rest.uploads.shutil.disk_usage", usage)
    assert push(face, b"0123456789")[1]["outcome"] == "refused"
    status, said = push(face, b'{"text": "words"}')
    assert (status, "lacks 7 bytes" in said["error"]["message"]) == (503, True)


def test_what_an_admin_does_to_the_home_is_in_the_log_with_the_actor(face: Face, tmp_path: Path) -> None:
    face.rekindle("token", "create", "ci")
    face.rekindle("token", "revoke", "ci")
    face.rekindle("gc")
    face.rekindle("gc", "--dry-run")
    face.rekindle("backup", str(tmp_path / "copy"))
    with face.app.database.read() as session:
        found = [(event.subject, event.subject_id, event.action, event.actor) for event in session.query(Event)]
    assert found == [
        ("token", "ci", "create", "token:local-1"),
        ("token", "ci", "revoke", "token:local-1"),
        ("home", "home", "gc", "token:local-1"),
        ("home", "home", "backup", "token:local-1"),
    ]
