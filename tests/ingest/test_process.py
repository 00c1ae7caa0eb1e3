"""Ingest in a process of its own: bounded in memory, exactly once however often it is killed."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from sqlalchemy import func, select

from orchestrator.errors import NotFound, Unavailable
from orchestrator.ingest import readers, run, spool
from orchestrator.ingest.records import Refused
from orchestrator.ingest.run import spawn
from storage.tables import Arrival, Batch, Document, DocumentBand, DocumentSketch, EvalSet
from tests.ingest.conftest import MakeWorld, World
from tests.ingest.texts import rows, text, write_lines


def count(world: World, table: Any) -> int:
    with world.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_child_process_gives_the_same_report(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    path = write_lines(tmp_path / "a.jsonl", rows(20))
    report = spawn(world, world.stream_id, path=path, name="a.jsonl", actor="test")
    assert (report.outcome, report.documents, report.heldout) == ("accepted", 20, 2)


def test_a_childs_error_is_raised_here(local: World, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(2))
    with pytest.raises(NotFound, match="there is no stream"):
        spawn(local, "nobody", path=path, name="a", actor="test")


def test_a_child_that_takes_too_long_is_ended(local: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(2000))
    monkeypatch.setattr(run, "TIMEOUT_S", 0.01)
    with pytest.raises(Unavailable, match="killed"):
        spawn(local, local.stream_id, path=path, name="a", actor="test")
    assert count(local, Batch) == 0


def write_bomb(path: Path) -> Path:
    """100 MB in one line, then one good document."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"id": "bomb", "text": "')
        for _ in range(100):
            file.write(b"a " * 500_000)
        file.write(b'"}\n' + json.dumps(rows(1)[0]).encode() + b"\n")
    return path


def peak_bytes(world: World, path: Path) -> tuple[dict[str, Any], int]:
    """Last message and peak resident memory of a child."""
    facts = {
        "format": 1,
        "home": str(world.home.root),
        "database_url": world.database.url,
        "stream_id": world.stream_id,
        "path": str(path),
        "exact": True,
        "name": path.name,
        "kind": "data",
        "actor": "test",
        "synthetic": False,
        "ad_hoc": False,
        "memory_bytes": 1 << 30,
        "timeout_s": 60,
    }
    file = world.home.spool / "spec.json"
    file.write_text(json.dumps(facts))
    code = (
        "import sys; from orchestrator.ingest.run import main; main(sys.argv[1:]);"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    # Not ru_maxrss: that of a child begins at the size of this test process.
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    *_, message, peak = done.stdout.splitlines()
    return json.loads(message), int(peak) * 1024


def test_a_bomb_stays_under_400_mb_and_the_good_document_survives(local: World, tmp_path: Path) -> None:
    message, peak = peak_bytes(local, write_bomb(tmp_path / "bomb.jsonl.gz"))
    assert (message["report"]["documents"], message["report"]["reasons"]) == (1, {"row too long": 1})
    assert peak < 400 << 20


def test_a_child_may_not_take_more_memory_than_it_is_given(
    local: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": text(1, words=1_500_000)}) + "\n")
    monkeypatch.setattr(run, "MEMORY_BYTES", 120 << 20)
    with pytest.raises(Refused, match="needs more memory than ingest may have"):
        spawn(local, local.stream_id, path=path, name="long.jsonl", actor="test")
    assert count(local, Batch) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_ingest_leaves_all_or_nothing_and_the_next_one_completes_it(
    local: World, tmp_path: Path, seed: int
) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(400))
    delay = random.Random(seed).uniform(0.3, 2.5)
    with contextlib.suppress(Unavailable), killing_children_after(delay):
        spawn(local, local.stream_id, path=path, name="a.jsonl", actor="test")
    whole = count(local, Batch)
    assert count(local, Document) == 400 * whole
    report = spawn(local, local.stream_id, path=path, name="a.jsonl", actor="test")
    assert report.outcome == ("copy" if whole else "accepted")
    tables = {table: count(local, table) for table in (Batch, EvalSet, Arrival, Document, DocumentSketch)}
    assert tables == {Batch: 1, EvalSet: 1, Arrival: 1, Document: 400, DocumentSketch: 400}
    assert count(local, DocumentBand) == 400 * 16
    assert list(local.home.spool.glob("ingest-*")) == []


@contextlib.contextmanager
def killing_children_after(delay_s: float) -> Iterator[None]:
    stop = threading.Event()

    def kill() -> None:
        if not stop.wait(delay_s):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):  # ended by itself meanwhile
                    if "orchestrator.ingest" in child.cmdline():
                        child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_four_producers_of_the_same_content_make_one_batch(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    paths = [write_lines(tmp_path / f"{n}.jsonl", rows(60)) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda path: world.ingest(path), paths))
    assert sorted(report.outcome for report in reports) == ["accepted", "copy", "copy", "copy"]
    assert (count(world, Batch), count(world, Document)) == (1, 60)


def test_two_producers_of_overlapping_content_keep_each_document_once(local: World, tmp_path: Path) -> None:
    paths = [write_lines(tmp_path / f"{n}.jsonl", rows(60, start=30 * n)) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        children = [
            pool.submit(spawn, local, local.stream_id, path=path, name=path.name, actor="test") for path in paths
        ]
        assert sum(child.result().documents for child in children) == 90


def test_a_full_disk_keeps_nothing_and_says_so(local: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(200))
    with monkeypatch.context() as patched:
        patched.setattr(spool, "fetch_stream", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(Unavailable, match="the disk is full; nothing was kept, free space at"):
            local.ingest(path)
    assert (count(local, Arrival), list(local.home.spool.glob("ingest-*"))) == (0, [])
    assert local.ingest(path).outcome == "accepted"


def test_the_file_may_change_after_it_was_taken_in(
    local: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(300))
    wanted, read = path.read_bytes(), readers.read

    def rewrite(*given: Any, **named: Any) -> Any:
        path.write_bytes(b"{}")
        return read(*given, **named)

    monkeypatch.setattr(readers, "read", rewrite)
    report = local.ingest(path)
    assert (report.documents, report.content_hash) == (300, hashlib.sha256(wanted).hexdigest())
