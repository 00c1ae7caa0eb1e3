"""Published folders and the live link."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage import publishing
from storage.artifacts import ArtifactStore
from storage.errors import ArtifactRefused, StorageError
from storage.folders import manifests_in
from tests import models


@pytest.fixture
def published(store: ArtifactStore, tmp_path: Path) -> Path:
    """A directory with v1 and v2."""
    directory = tmp_path / "published"
    for number in (1, 2):
        source = tmp_path / f"source-{number}"
        source.mkdir()
        (source / "config.json").write_text(f'{{"number": {number}}}')
        (source / "same.txt").write_text("same")
        publishing.publish(store, {"answer/model": store.add_folder(source).hash}, directory, f"v{number}")
    return directory


def test_a_published_folder_shares_its_bytes_with_the_store(store: ArtifactStore, published: Path) -> None:
    inodes = {store.path(stored.hash).stat().st_ino for stored, _ in store.objects.list()}
    files = [published / version / name for version in ("v1", "v2") for name in ("config.json", "same.txt")]
    assert {path.stat().st_ino for path in files} <= inodes
    assert files[1].stat().st_ino == files[3].stat().st_ino
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}


def test_a_bank_of_adapters_has_its_model_in_a_folder_beneath(store: ArtifactStore, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    (bank / "adapters" / "t1").mkdir(parents=True)
    (bank / "router.json").write_text("{}")
    (bank / "adapters" / "t1" / "adapter_config.json").write_text("{}")
    model = store.add_model_folder(models.llama(tmp_path / "model"))
    answer = {"answer/bank": store.add_folder(bank).hash, "answer/model": model.hash}
    folder = publishing.publish(store, answer, tmp_path / "out", "v1")
    assert (folder / "adapters" / "t1" / "adapter_config.json").read_text() == "{}"
    assert not (folder / "config.json").exists(), "from_pretrained would take the bare model for the answer"
    read = AutoModelForCausalLM.from_pretrained(folder / "base").state_dict()
    original = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in original.items())
    alone = store.materialise(answer["answer/bank"], tmp_path / "alone")
    assert (alone / "router.json").is_file()


def test_publishing_again_keeps_the_folder_and_repairs_one_that_lost_a_file(
    store: ArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    answer = {"answer/model": store.add_folder(source).hash}
    folder = publishing.publish(store, answer, tmp_path / "out", "v1")
    inode = folder.stat().st_ino
    assert publishing.publish(store, answer, tmp_path / "out", "v1").stat().st_ino == inode
    (folder / "config.json").unlink()
    publishing.publish(store, answer, tmp_path / "out", "v1")
    assert (folder / "config.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v1"]


def own(published: Path) -> set[publishing.Folder]:
    """All that was published there."""
    return {(path.name, manifests_in(path) or ()) for path in published.glob("v*")}


def test_a_folder_of_another_version_makes_room(store: ArtifactStore, published: Path, tmp_path: Path) -> None:
    other = store.add_folder(tmp_path / "source-2").hash
    folder = publishing.publish(store, {"answer/model": other}, published, "v1")
    assert (folder / "config.json").read_text() == '{"number": 2}'
    assert sorted(path.name for path in published.iterdir()) == ["v1", "v2"]


@pytest.mark.parametrize("kind", ["folder", "link", "dangling"])
def test_what_was_not_published_here_is_refused(
    store: ArtifactStore, published: Path, tmp_path: Path, kind: str
) -> None:
    answer = {"answer/model": store.add_folder(tmp_path / "source-2").hash}
    if kind == "folder":
        (published / "v3").mkdir()
    else:
        (published / "v3").symlink_to("v2" if kind == "link" else "nowhere")
    with pytest.raises(ArtifactRefused, match="something else"):
        publishing.publish(store, answer, published, "v3")


def test_pruning_and_withdrawing_leave_what_is_not_ones_own(published: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (published / "v7").mkdir()
    (published / "notes").mkdir()
    (published / "v8").symlink_to(tmp_path / "precious")
    mine = {folder for folder in own(published) if folder[0] in ("v1", "v7", "v8")} | {("v2", ("another",))}
    assert publishing.prune(published, own=mine, older_than_s=0) == ["v1"]
    publishing.point_live(published, "v2")
    publishing.withdraw(published, own=mine, folders=True)
    assert sorted(path.name for path in published.iterdir()) == ["live", "notes", "v2", "v7", "v8"]
    publishing.withdraw(published, own=own(published), folders=True)
    assert sorted(path.name for path in published.iterdir()) == ["notes", "v7", "v8"]
    assert (tmp_path / "precious").is_dir()


def test_on_another_file_system_bytes_are_copied(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    monkeypatch.setattr(os, "link", refuse)
    answer = {"answer/model": store.add_folder(tmp_path / "source").hash}
    folder = publishing.publish(store, answer, tmp_path / "out", "v1")
    status = (folder / "config.json").stat()
    assert (status.st_nlink, status.st_mode & 0o777) == (1, 0o444)


def test_the_live_link_points_where_it_was_told(published: Path) -> None:
    assert publishing.live_target(published) is None
    for name in ("v1", "v2", "v2", "v1"):
        publishing.point_live(published, name)
        assert publishing.live_target(published) == published / name
    assert sorted(path.name for path in published.iterdir()) == ["live", "v1", "v2"]


def test_the_live_link_never_points_at_what_is_not_there(published: Path) -> None:
    publishing.point_live(published, "v1")
    for name in ("v3", "../v1", "", ".", "live"):
        with pytest.raises(StorageError):
            publishing.point_live(published, name)
    assert publishing.live_target(published) == published / "v1"


def test_a_reader_always_finds_exactly_one_version(published: Path) -> None:
    publishing.point_live(published, "v1")
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add((published / "live" / "config.json").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        publishing.point_live(published, f"v{turn % 2 + 1}")
    done.set()
    reader.join()
    assert seen <= {'{"number": 1}', '{"number": 2}'}


def test_pruning_spares_the_live_the_kept_and_the_lately_replaced(published: Path) -> None:
    publishing.point_live(published, "v1")
    publishing.point_live(published, "v2")
    everything = own(published)
    assert publishing.prune(published, own=everything, older_than_s=3600) == []
    assert publishing.prune(published, own=(), older_than_s=0) == []
    time.sleep(0.02)
    assert publishing.prune(published, own=everything, older_than_s=0.01) == ["v1"]
    assert (published / "live" / "config.json").exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_plain_from_pretrained_reads_a_published_adapter(store: ArtifactStore, tmp_path: Path) -> None:
    source = models.llama(tmp_path / "llama")
    base = store.add_model_folder(source)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(source), LoraConfig(init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    answer = {"answer/adapter": store.add_folder(tmp_path / "adapter").hash, "answer/model": base.hash}
    folder = publishing.publish(store, answer, tmp_path / "out", "v2")
    assert publishing.publish(store, answer, tmp_path / "out", "v2") == folder
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([AutoTokenizer.from_pretrained(folder)("a few words")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, adapted(tokens).logits)
