"""What moved of a fused tensor is stored over the earlier one, and comes back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sqlalchemy import select, update
from torch import Tensor

from storage import manifests
from storage.artifacts import ArtifactStore, ManifestRecord
from storage.database import Database, now
from storage.errors import ArtifactCorrupt, ArtifactMissing
from storage.patches import Span, Stayed
from storage.tables import ManifestEntry, StoredObject

FUSED = "h.0.attn.c_attn.weight"
SIZE = 24


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def saved(folder: Path, fused: Tensor, **others: Tensor) -> Path:
    folder.mkdir(parents=True)
    save_file({FUSED: fused, **others}, folder / "model.safetensors", {"format": "pt"})
    return folder


def moved(earlier: Tensor, seed: int, *spans: Span) -> Tensor:
    """The same with other numbers in these spans."""
    found = earlier.clone()
    for one in spans:
        place = found.narrow(one.dim, one.start, one.stop - one.start)
        place.copy_(drawn(seed, *place.shape).to(found.dtype))
    return found


def back(store: ArtifactStore, stored: ManifestRecord, out: Path) -> dict[str, Tensor]:
    folder = store.materialise(stored.hash, out)
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def sizes(stored: ManifestRecord) -> list[int]:
    """Bytes of each patch."""
    return [one.bytes for entry in stored.entries for one in entry.patches]


def stayed(earlier: ManifestRecord, *spans: Span, name: str = FUSED) -> Stayed:
    return Stayed(manifests=[earlier.hash], spans={name: spans})


def thirds(*kept: int) -> list[Span]:
    """Of a tensor as GPT-2 fuses query, key and value."""
    return [Span(1, SIZE * at, SIZE * (at + 1)) for at in kept]


@pytest.fixture
def base(tmp_path: Path) -> Tensor:
    return drawn(0, SIZE, 3 * SIZE)


@pytest.fixture
def first(store: ArtifactStore, base: Tensor, tmp_path: Path) -> ManifestRecord:
    return store.add_folder(saved(tmp_path / "first", base, other=torch.ones(3)))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
def test_stage_after_stage_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: torch.dtype
) -> None:
    root = tmp_path_factory.mktemp("stages")
    store = ArtifactStore(root / "store")
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3).filter(lambda found: max(found) > 1))
    tensor = (100 * drawn(0, *shape)).to(dtype)
    stored = store.add_folder(saved(root / "0", tensor))
    for stage in range(1, 5):
        dim = data.draw(st.sampled_from([at for at, size in enumerate(shape) if size > 1]))
        cuts = sorted(data.draw(st.sets(st.integers(0, shape[dim]), min_size=2, max_size=4)))
        spans = [Span(dim, start, stop) for start, stop in pairwise(cuts)]
        kept, some = spans[::2], (Span(dim, 0, cuts[0]), *spans[1::2], Span(dim, cuts[-1], shape[dim]))
        tensor = moved(tensor, stage, *(one for one in some if one.start < one.stop))
        stored = store.add_folder(saved(root / str(stage), tensor), stayed(stored, *kept))
        found = back(store, stored, root / f"out-{stage}")
        assert found[FUSED].dtype == dtype
        assert torch.equal(found[FUSED], tensor)
        copied = store.copy_out(stored.hash, root / f"copy-{stage}")
        (path,) = copied.glob("*.safetensors")
        assert torch.equal(load_file(path)[FUSED], tensor)


def test_only_what_moved_is_new(store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path) -> None:
    tensor = moved(base, 1, *thirds(1))
    second = store.add_folder(saved(tmp_path / "second", tensor, other=torch.ones(3)), stayed(first, *thirds(0, 2)))
    (size,) = sizes(second)
    assert 4 * SIZE * SIZE < size < 4 * SIZE * SIZE + 200
    assert second.bytes == first.bytes
    assert {one.object_hash for one in second.entries} == {one.object_hash for one in first.entries}
    third = store.add_folder(
        saved(tmp_path / "third", moved(tensor, 2, *thirds(0)), other=torch.ones(3)), stayed(second, *thirds(1, 2))
    )
    again = store.add_folder(
        saved(tmp_path / "again", moved(tensor, 3, *thirds(0, 1)), other=torch.ones(3)), stayed(third, *thirds(2))
    )
    assert len(sizes(third)) == 2, "what moved earlier still lies over the first"
    assert len(sizes(again)) == 1, "what is covered is left out"


@pytest.mark.parametrize(
    "wrong", ["it moved", "another shape", "no dimension", "two", "outside", "nothing moved", "type"]
)
def test_a_tensor_of_which_the_spans_do_not_hold_is_stored_whole(
    store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path, wrong: str
) -> None:
    tensor, spans = moved(base, 1, *thirds(1)), thirds(0, 2)
    match wrong:
        case "it moved":
            tensor = moved(tensor, 2, Span(1, 2 * SIZE, 2 * SIZE + 1))
        case "another shape":
            tensor = torch.cat([tensor, tensor])
        case "no dimension":
            spans = [Span(2, 0, 1)]
        case "two":
            spans = [*spans, Span(0, 0, SIZE)]
        case "outside":
            spans = [Span(1, 2 * SIZE, 4 * SIZE)]
        case "nothing moved":
            spans = thirds(0, 1, 2)
        case "type":
            tensor = tensor.to(torch.bfloat16)
    made = store.add_folder(saved(tmp_path / "second", tensor), stayed(first, *spans))
    assert sizes(made) == []
    assert torch.equal(back(store, made, tmp_path / "out")[FUSED], tensor)


def test_what_did_not_move_after_all_is_not_stored_anew(
    store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "second", base, other=torch.ones(3))
    assert store.add_folder(folder, stayed(first, *thirds(0))) == first
    one = saved(tmp_path / "third", moved(base, 1, *thirds(2)), other=torch.ones(3))
    (size,) = sizes(store.add_folder(one, stayed(first, *thirds(1))))
    assert size < 4 * SIZE * SIZE + 200


def test_a_tensor_whose_patches_come_to_its_size_is_stored_whole(
    store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path
) -> None:
    earlier, tensor, count = first, base, []
    for stage, kept in enumerate(((2,), (0,), (1,))):
        tensor = moved(tensor, stage, *(one for at in range(3) if at not in kept for one in thirds(at)))
        earlier = store.add_folder(saved(tmp_path / f"next-{stage}", tensor), stayed(earlier, *thirds(*kept)))
        count.append(len(sizes(earlier)))
        assert torch.equal(back(store, earlier, tmp_path / f"out-{stage}")[FUSED], tensor)
    assert count == [1, 0, 2]


@pytest.mark.parametrize("lost", ["the manifest", "the tensor"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")])
def test_a_tensor_whose_earlier_one_cannot_be_read_is_stored_whole(
    store: ArtifactStore,
    base: Tensor,
    first: ManifestRecord,
    tmp_path: Path,
    lost: str,
    damage: Callable[[Path], object],
) -> None:
    (entry,) = (one for one in first.entries if one.path == FUSED)
    path = store.path(first.hash if lost == "the manifest" else entry.object_hash)
    path.chmod(0o644)
    damage(path)
    tensor = moved(base, 1, *thirds(1))
    made = store.add_folder(saved(tmp_path / "second", tensor), stayed(first, *thirds(0, 2)))
    assert sizes(made) == []
    assert torch.equal(back(store, made, tmp_path / "out")[FUSED], tensor)


def test_unknown_tensors_and_files_are_stored_as_ever(
    store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "second", base)
    assert store.add_folder(folder, stayed(first, *thirds(0), name="h.9.weight")) == store.add_folder(folder)


@pytest.mark.parametrize("tensor", [torch.zeros(2, 0, 3), torch.ones(3, dtype=torch.int8)[:0], torch.tensor(1.0)])
def test_a_tensor_without_numbers_or_dimensions_has_no_spans(
    store: ArtifactStore, tmp_path: Path, tensor: Tensor
) -> None:
    folder = saved(tmp_path / "first", tensor)
    first = store.add_folder(folder)
    assert store.add_folder(folder, stayed(first, Span(0, 0, 1))) == first


def test_a_name_that_sql_could_not_take_is_stored_whole(store: ArtifactStore, tmp_path: Path) -> None:
    for length, patches in ((500, 1), (512, 0)):
        name, folder = "h" * length, tmp_path / str(length)
        for stage, value in (("first", 1.0), ("second", 2.0)):
            (folder / stage).mkdir(parents=True)
            tensor = torch.ones(4)
            tensor[2:] = value
            save_file({name: tensor}, folder / stage / "model.safetensors", {"format": "pt"})
        first = store.add_folder(folder / "first")
        made = store.add_folder(folder / "second", stayed(first, Span(0, 0, 2), name=name))
        assert len(sizes(made)) == patches


def test_a_patch_that_changed_on_disk_or_is_missing_is_not_laid(
    store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path
) -> None:
    tensor = moved(base, 1, *thirds(1))
    made = store.add_folder(saved(tmp_path / "second", tensor), stayed(first, *thirds(0, 2)))
    (patch,) = (one for entry in made.entries for one in entry.patches)
    path = store.path(patch.object_hash)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactCorrupt, match="changed on disk"):
        store.materialise(made.hash, tmp_path / "out")
    path.unlink()
    with pytest.raises(ArtifactMissing, match="restore it from a backup"):
        store.materialise(made.hash, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sql_knows_patches_as_bytes_that_are_needed_and_new(
    database: Database, store: ArtifactStore, base: Tensor, first: ManifestRecord, tmp_path: Path
) -> None:
    tensor = moved(base, 1, *thirds(1))
    made = store.add_folder(saved(tmp_path / "second", tensor, other=torch.ones(3)), stayed(first, *thirds(0, 2)))
    (patch,) = (one for entry in made.entries for one in entry.patches)
    with database.write() as session:
        manifests.register(session, first)
        manifests.register(session, made)
        kinds: Mapping[str, str] = dict(
            session.execute(
                select(ManifestEntry.path, ManifestEntry.kind).where(ManifestEntry.manifest_hash == made.hash)
            ).all()
        )
        assert kinds == {FUSED: "tensor", "other": "tensor", f"{FUSED}[1:{SIZE}:{2 * SIZE}]": "patch"}
        assert manifests.tensors(session, made.hash) == {FUSED, "other"}
        assert manifests.new_share(session, [made.hash], [first.hash]) == patch.bytes / made.bytes
        session.execute(update(StoredObject).where(StoredObject.hash == patch.object_hash).values(deleted_at=now()))
        assert manifests.available(session, [first.hash, made.hash]) == {first.hash}
