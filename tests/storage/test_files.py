"""Files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from storage import files


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json_atomic(path, {"ä": 1})
    files.write_json_atomic(path, {"ä": 2})
    assert (files.read_json(path), [one.name for one in tmp_path.iterdir()]) == ({"ä": 2}, ["a.json"])


def test_a_private_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "token", b"secret", mode=0o600)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_when_the_disk_refuses_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    path = tmp_path / "a"
    files.write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError, match="I/O error"):
            files.write_atomic(path, b"new")
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (b"old", 1)


def test_after_one_failed_fsync_the_bytes_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real_open, real_sync = os.open, os.fsync

    def count_open(path: str, *arguments: int) -> int:
        opened.append(str(path))
        return real_open(path, *arguments)

    def fail_first(descriptor: int) -> None:
        if len(opened) == 1:
            raise OSError(errno.EIO, "I/O error")
        real_sync(descriptor)

    monkeypatch.setattr(os, "open", count_open)
    monkeypatch.setattr(os, "fsync", fail_first)
    files.write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert opened[0] != opened[1]


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_huge_json_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    (tmp_path / "a").write_text("[" + "1," * 10 + "1]")
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        files.read_json(tmp_path / "a")


def test_not_a_number_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json_atomic(tmp_path / "a", float("nan"))
