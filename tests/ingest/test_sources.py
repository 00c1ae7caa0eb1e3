"""A source offers each file once, when it has stood still."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from orchestrator.errors import BadInput, Unavailable
from orchestrator.ingest import readers, sources, spool
from orchestrator.ingest.sources import Watcher, fetch, find
from tests.ingest.conftest import World
from tests.ingest.texts import rows, write_lines


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def watch(uri: Path | str, cache: Path, clock: Clock, settle_s: float = 2.0) -> Watcher:
    return Watcher(str(uri), settle_s=settle_s, cache=cache / "cache.json", monotonic=clock)


def names(watcher: Watcher) -> list[str]:
    return [found.name for found in watcher.poll()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


def test_a_growing_file_waits_until_it_stands_still(folder: Path, tmp_path: Path) -> None:
    clock = Clock()
    watcher = watch(folder, tmp_path, clock)
    for size in range(1, 5):
        (folder / "a.jsonl").write_text("x" * size)
        assert names(watcher) == []
        clock.seconds += 1.5
    assert names(watcher) == []
    clock.seconds += 0.6
    assert names(watcher) == ["a.jsonl"]


def test_what_was_dealt_with_is_not_offered_again_even_by_another_daemon(folder: Path, tmp_path: Path) -> None:
    write_lines(folder / "a.jsonl", rows(1))
    watcher = watch(folder, tmp_path, Clock(), settle_s=0)
    (found,) = watcher.poll()
    watcher.done(found)
    assert names(watcher) == []
    assert names(watch(folder, tmp_path, Clock(), settle_s=0)) == []
    write_lines(folder / "a.jsonl", rows(2))
    assert names(watch(folder, tmp_path, Clock(), settle_s=0)) == ["a.jsonl"]


def test_a_broken_cache_is_no_cache(folder: Path, tmp_path: Path) -> None:
    write_lines(folder / "a.jsonl", rows(1))
    (tmp_path / "cache.json").write_text("[broken")
    assert names(watch(folder, tmp_path, Clock(), settle_s=0)) == ["a.jsonl"]


def test_hidden_unfinished_and_linked_files_are_passed_over(folder: Path) -> None:
    path = write_lines(folder / "a.jsonl", rows(1))
    for name in (".hidden.jsonl", "b.jsonl.tmp", "c.part"):
        write_lines(folder / name, rows(1))
    (folder / "link.jsonl").symlink_to(path)
    (folder / "deeper").mkdir()
    assert [found.name for found in find(str(folder))] == ["a.jsonl"]


def test_globs_name_files_by_their_place_under_the_fixed_part(folder: Path) -> None:
    (folder / "2024").mkdir()
    write_lines(folder / "2024" / "a.jsonl", rows(1))
    write_lines(folder / "b.txt", rows(1))
    assert [found.name for found in find(f"{folder}/**/*.jsonl")] == ["2024/a.jsonl"]
    assert [found.name for found in find(f"file://{folder}/*.txt")] == ["b.txt"]
    assert find(f"{folder}/nothing*") == []


def test_a_remote_source_is_listed_and_fetched(local: World, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/a.jsonl", write_lines(tmp_path / "a.jsonl", rows(10)).read_bytes())
    system.pipe("/bucket/b.tmp", b"unfinished")
    try:
        (found,) = watch("memory://bucket/*", tmp_path, Clock(), settle_s=0).poll()
        report = local.ingest(found.location, name=found.name)
    finally:
        system.rm("/bucket", recursive=True)
    assert (report.outcome, report.documents) == ("accepted", 10)


def test_sources_that_cannot_be_reached_say_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot list memory://nowhere/a"):
        find("memory://nowhere/a.jsonl")
    with pytest.raises(BadInput, match="is not a URL that can be read"):
        find("nonsense://a")


def test_a_dataset_of_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    fsspec.registry.clear() if hasattr(fsspec.registry, "clear") else None
    with pytest.raises(BadInput, match=r"pip install 'rekindle\[train\]'"):
        find("hf://datasets/owner/name@main")


def test_of_a_dataset_only_data_files_are_read() -> None:
    names = ["a.parquet", "b.jsonl.gz", "loader.py", "c.pkl", "README.md"]
    assert [name for name in names if sources._is_data(name)] == ["a.parquet", "b.jsonl.gz"]


def test_a_folder_a_url_and_a_dataset_give_the_same_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (*readers.READERS, *(suffix.upper() for suffix in readers.READERS))
    names = sorted(f"a{kind}{packed}" for kind in kinds for packed in ("", *readers.PACKED))
    system = fsspec.filesystem("memory")
    for name in names:
        (folder / name).write_text("x")
        system.pipe(f"/bucket/{name}", b"x")
    try:
        local, remote = find(str(folder)), find("memory://bucket")
        monkeypatch.setattr(sources, "_remote", lambda _: (system, "/bucket"))
        dataset = find("hf://datasets/owner/name")
    finally:
        system.rm("/bucket", recursive=True)
    assert len(names) == 90
    for found in (local, remote, dataset):
        assert [one.name for one in found] == names


def test_a_file_that_changes_while_it_is_copied_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(3))
    copy = spool.fetch_stream

    def grow(*given: Any, **named: Any) -> spool.Fetched:
        with path.open("a") as file:
            file.write("more")
        return copy(*given, **named)

    monkeypatch.setattr(spool, "fetch_stream", grow)
    (found,) = find(str(path))
    with pytest.raises(spool.StillGrowing, match="changed while it was read"):
        fetch(found, tmp_path, max_bytes=1 << 20)


def test_the_work_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead = tmp_path / "ingest-dead"
    dead.mkdir()
    (dead / "lock").touch()
    with spool.work_folder(tmp_path) as living:
        assert spool.sweep(tmp_path) == 1
        assert (living.exists(), dead.exists()) == (True, False)
        assert oct(os.stat(living).st_mode & 0o777) == "0o700"
    assert not living.exists()


def test_a_second_ingest_of_a_stream_waits_only_so_long(tmp_path: Path) -> None:
    with spool.stream_lock(tmp_path, "s", 1), pytest.raises(Unavailable, match="another ingest"):  # noqa: SIM117
        with spool.stream_lock(tmp_path, "s", 0.1):
            pass
