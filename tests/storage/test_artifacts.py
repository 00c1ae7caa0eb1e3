"""The artifact store: the same bits back, whatever happens in between."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from storage import objects, safetensors
from storage.artifacts import ArtifactStore
from storage.errors import ArtifactCorrupt, ArtifactMissing, ArtifactRefused, ArtifactWriteFailed, StorageError
from tests import models
from tests.manifests import verify_manifest

TENSORS = {
    "half": torch.arange(6, dtype=torch.float32).reshape(2, 3).to(torch.bfloat16),
    "whole": torch.randn(5, 7, generator=torch.Generator().manual_seed(1)),
    "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    "scalar": torch.tensor(3, dtype=torch.int64),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False]),
    "eighth": torch.zeros(3, dtype=torch.float8_e4m3fn),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "nested").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "nested" / "notes.txt").write_text("notes")
    save_file(TENSORS, made / "model.safetensors", {"format": "pt"})
    return made


def _read(folder: Path) -> dict[str, torch.Tensor]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return {name: load_file(folder / path)[name] for name, path in index["weight_map"].items()}


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].flatten().view(torch.uint8).equal(second[name].flatten().view(torch.uint8))
        for name in first
    )


def test_a_folder_comes_back_bit_for_bit(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    stored = store.add_folder(folder)
    out = store.materialise(stored.hash, tmp_path / "out")
    assert _same(_read(out), TENSORS)
    assert (out / "nested" / "notes.txt").read_text() == "notes"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())


def test_from_pretrained_reads_a_materialised_model(store: ArtifactStore, tmp_path: Path) -> None:
    source = models.llama(tmp_path / "llama")
    out = store.materialise(store.add_model_folder(source).hash, tmp_path / "out")
    before = AutoModelForCausalLM.from_pretrained(source).state_dict()
    after = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert _same(before, after)


def test_a_model_in_shards_is_split_too(store: ArtifactStore, tmp_path: Path) -> None:
    source = models.llama(tmp_path / "llama")
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    shards = list((tmp_path / "shards").glob("model-*-of-*.safetensors"))
    stored = store.add_folder(tmp_path / "shards")
    out = store.materialise(stored.hash, tmp_path / "out")
    whole = store.add_folder(source)
    assert len(shards) > 1
    assert {one.object_hash for one in stored.entries if one.kind == "tensor"} == {
        one.object_hash for one in whole.entries if one.kind == "tensor"
    }
    assert _same(AutoModelForCausalLM.from_pretrained(out).state_dict(), model.state_dict())


def test_what_a_training_left_alone_is_stored_once(store: ArtifactStore, folder: Path) -> None:
    before = store.add_folder(folder)
    save_file({**TENSORS, "whole": TENSORS["whole"] + 1}, folder / "model.safetensors", {"format": "pt"})
    after = store.add_folder(folder)
    changed = {one.path for one in set(after.entries) - set(before.entries)}
    assert changed == {"whole"}


def test_the_same_folder_has_the_same_hash_and_a_materialised_one_too(store: ArtifactStore, folder: Path) -> None:
    first = store.add_folder(folder)
    out = store.materialise(first.hash, folder.parent / "out")
    assert store.add_folder(folder) == first
    assert store.add_folder(out).hash == first.hash


def test_other_safetensors_files_come_back_as_they_were(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    source.mkdir()
    save_file(TENSORS, source / "adapter_model.safetensors")
    save_file(TENSORS, source / "optimizer.safetensors")
    out = store.materialise(store.add_folder(source).hash, tmp_path / "out")
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert not (out / "model.safetensors.index.json").exists()


def test_objects_are_read_only_and_never_written_again(store: ArtifactStore) -> None:
    stored = store.add_bytes(b"hello")
    inode = store.path(stored.hash).stat().st_ino
    assert store.add_bytes(b"hello") == stored
    status = store.path(stored.hash).stat()
    assert (status.st_ino, status.st_mode & 0o777) == (inode, 0o444)


def test_a_file_keeps_its_bytes(store: ArtifactStore, tmp_path: Path) -> None:
    data = os.urandom(9 << 20)
    (tmp_path / "big").write_bytes(data)
    stored = store.add_file(tmp_path / "big")
    assert (stored.hash, stored.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert store.path(stored.hash).read_bytes() == data


def test_every_flipped_bit_is_found(store: ArtifactStore, folder: Path) -> None:
    stored = store.add_folder(folder)
    for entry in stored.entries:
        path = store.path(entry.object_hash)
        good = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        with pytest.raises(ArtifactCorrupt):
            verify_manifest(store, stored.hash)
        path.write_bytes(good)
    verify_manifest(store, stored.hash)


def test_a_changed_manifest_is_not_believed(store: ArtifactStore, folder: Path) -> None:
    stored = store.add_folder(folder)
    path = store.path(stored.hash)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"notes.txt", b"notes.exe"))
    with pytest.raises(ArtifactCorrupt):
        store.materialise(stored.hash, folder.parent / "out")


def test_an_object_cut_short_is_not_linked_and_is_healed_by_adding_it_again(store: ArtifactStore, folder: Path) -> None:
    stored = store.add_folder(folder)
    path = store.path(stored.entries[0].object_hash)
    path.chmod(0o644)
    os.truncate(path, 1)
    with pytest.raises(ArtifactCorrupt):
        store.materialise(stored.hash, folder.parent / "out")
    store.add_folder(folder)
    verify_manifest(store, stored.hash)


def test_a_missing_object_is_named(store: ArtifactStore, folder: Path) -> None:
    stored = store.add_folder(folder)
    store.path(stored.entries[0].object_hash).unlink()
    with pytest.raises(ArtifactMissing, match=stored.entries[0].object_hash):
        store.materialise(stored.hash, folder.parent / "out")
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "a" * 63, "", "a" * 64 + "/x"])
def test_a_name_that_is_no_hash_never_becomes_a_path(store: ArtifactStore, name: str) -> None:
    with pytest.raises(StorageError, match="not a sha256"):
        store.path(name)


class Faults:
    """Lets the n-th call of a system function fail, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int, error: int) -> None:
        real = getattr(os, name)
        self.calls = 0

        def call(*arguments: object, **options: object) -> object:
            self.calls += 1
            if self.calls == at:
                raise OSError(error, os.strerror(error))
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)


def _objects(store: ArtifactStore) -> list[str]:
    return [stored.hash for stored, _ in store.objects.list()]


def _temporary(store: ArtifactStore) -> list[Path]:
    return list((store.root / "tmp").iterdir())


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("at", range(1, 5))
def test_one_failure_of_the_disk_leaves_all_or_nothing(
    store: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    with monkeypatch.context() as patch:
        Faults(patch, name, at, errno.EIO)
        try:
            stored = store.add_folder(folder)
        except ArtifactWriteFailed:
            assert _objects(store) == []
        else:
            verify_manifest(store, stored.hash)
    assert _temporary(store) == []
    verify_manifest(store, store.add_folder(folder).hash)


def test_after_a_failed_fsync_the_bytes_go_to_a_new_file(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []
    real = os.fsync

    def fail_first(descriptor: int) -> None:
        if not failed:
            failed.append(os.dup(descriptor))  # keeps the inode, so that the new file cannot have its number
            raise OSError(errno.EIO, "I/O error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_first)
    stored = store.add_bytes(b"hello")
    assert os.fstat(failed[0]).st_ino != store.path(stored.hash).stat().st_ino
    os.close(failed[0])


def test_a_disk_that_stays_broken_stores_nothing(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ArtifactWriteFailed, match="No space left"):
        store.add_bytes(b"hello")
    assert (_objects(store), _temporary(store)) == ([], [])


KILLED = """
import os, sys
from pathlib import Path
from storage.artifacts import ArtifactStore

name, at, root, folder = sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:])
store, real, calls = ArtifactStore(root), getattr(os, name), []

def call(*arguments, **options):
    calls.append(name)
    return os._exit(9) if len(calls) == at else real(*arguments, **options)

setattr(os, name, call)
store.add_folder(folder)
"""


@pytest.mark.parametrize("name", ["fsync", "replace", "utime"])
@pytest.mark.parametrize("at", [1, 4, 10])
def test_a_process_killed_between_two_steps_leaves_no_half_object(
    store: ArtifactStore, folder: Path, name: str, at: int
) -> None:
    command = [sys.executable, "-c", KILLED, name, str(at), str(store.root), str(folder)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], timeout=60).returncode == 9
    for stored in _objects(store):
        store.verify(stored)
    verify_manifest(store, store.add_folder(folder).hash)


def test_a_disk_that_gives_back_other_bytes_is_found_before_anybody_trusts_them(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "sha256_file", lambda _: "0" * 64)
    with pytest.raises(ArtifactWriteFailed, match="gave back other bytes"):
        store.add_bytes(b"hello")
    assert _objects(store) == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "data.pkl"])
def test_weights_that_are_only_pickles_are_refused(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    source = tmp_path / "pickled"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / name).write_bytes(b"\x80\x04")
    with pytest.raises(ArtifactRefused, match="never stored"):
        store.add_model_folder(source)


def test_pickles_beside_safetensors_are_left_out_and_named(store: ArtifactStore, folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    stored = store.add_folder(folder)
    assert stored.skipped == ("pytorch_model.bin", "training_args.bin")
    assert not any(entry.path.endswith(".bin") for entry in stored.entries)


def test_links_are_refused_in_a_folder_and_followed_in_a_model_of_the_hub_cache(
    store: ArtifactStore, folder: Path
) -> None:
    linked = folder.parent / "snapshot"
    linked.mkdir()
    for name in ("config.json", "model.safetensors"):
        (linked / name).symlink_to(folder / name)
    with pytest.raises(ArtifactRefused, match="link"):
        store.add_folder(linked)
    assert len(store.add_model_folder(linked).entries) == 1 + len(TENSORS)


def _header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text)) + text + data


BROKEN = {
    "no header": b"abc",
    "endless header": struct.pack("<Q", 1 << 60) + b"{}",
    "no JSON": _header(b"{nope}"),
    "a list": _header([1]),
    "overlap": _header({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                        "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, b"123"),
    "a gap": _header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"12"),
    "too short": _header({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, b"12"),
    "too long": _header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"12"),
    "wrong size": _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2]}}, b"12"),
    "unknown dtype": _header({"a": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
    "negative": _header({"a": {"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}}, b"1"),
    "twice": _header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                     b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "bad name": _header({"a\nb": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_safetensors_are_refused(store: ArtifactStore, folder: Path, kind: str) -> None:
    (folder / "model.safetensors").write_bytes(BROKEN[kind])
    with pytest.raises(ArtifactRefused):
        store.add_folder(folder)
    assert _objects(store) == []


def test_a_header_is_never_read_beyond_its_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_HEADER_BYTES", 16)
    path = folder / "model.safetensors"
    with path.open("rb") as file, pytest.raises(ArtifactRefused, match="cannot be"):
        safetensors.read_header(file, path)


def test_an_index_that_names_a_missing_shard_is_refused(store: ArtifactStore, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(ArtifactRefused, match=r"model-1\.safetensors"):
        store.add_folder(folder)


def test_a_manifest_of_a_newer_format_or_with_a_path_that_leaves_the_folder_is_refused(store: ArtifactStore) -> None:
    entry = {"kind": "file", "path": "../x", "object": "a" * 64, "bytes": 1}
    newer = store.add_bytes(json.dumps({"format": 3, "entries": []}).encode())
    unsafe = store.add_bytes(json.dumps({"format": 1, "entries": [entry]}).encode())
    with pytest.raises(ArtifactRefused, match="format 3"):
        store.read_manifest(newer.hash)
    with pytest.raises(ArtifactRefused, match="cannot be the name"):
        store.read_manifest(unsafe.hash)


def test_an_empty_folder_and_one_that_is_none_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "missing"):
        with pytest.raises(ArtifactRefused):
            store.add_folder(path)
