"""A file becomes a batch: what is kept, dropped and quarantined, and that no row is on both sides."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from orchestrator.errors import BadInput, NotFound
from orchestrator.ingest.arrival import ingest
from storage.tables import Arrival, Batch, Document, EvalSet, Event, Quarantine
from tests.ingest.conftest import MakeWorld, World
from tests.ingest.texts import rows, text, write_lines


def documents(world: World, batch_id: int | None, split: str | None = None) -> list[Document]:
    with world.database.read() as session:
        query = select(Document).where(Document.batch_id == batch_id).order_by(Document.row)
        return [found for found in session.scalars(query) if split in (None, found.split)]


def all_of(world: World, table: Any) -> list[Any]:
    with world.database.read() as session:
        return list(session.scalars(select(table).order_by(table.id)))


def near(seed: int) -> str:
    """A text that differs from ``text(seed)`` in its last word."""
    return text(seed).rsplit(" ", 1)[0] + " otherwise"


def test_a_batch_has_documents_a_snapshot_and_an_eval_set(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    report = world.ingest(write_lines(tmp_path / "a.jsonl", rows(50)))
    assert (report.outcome, report.state, report.documents, report.train, report.heldout) == (
        "accepted",
        "pending",
        50,
        45,
        5,
    )
    (batch,), (eval_set,) = all_of(world, Batch), all_of(world, EvalSet)
    snapshot = pq.read_table(world.store.path(batch.snapshot_hash)).to_pylist()
    assert [(row["row"], row["external_id"], row["text"]) for row in snapshot] == [
        (n, f"d{n}", text(n)) for n in range(50)
    ]
    stored = [(found.digest, found.split) for found in documents(world, batch.id)]
    assert stored == [(row["digest"], row["split"]) for row in snapshot]
    held = pq.read_table(world.store.path(eval_set.content_hash)).to_pylist()
    assert {row["digest"] for row in held} == {row["digest"] for row in snapshot if row["split"] == "heldout"}
    assert (eval_set.name, eval_set.kind, eval_set.members) == (f"batch-{batch.id}", "batch", [batch.id])


def test_the_same_content_is_a_copy_whatever_its_name(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    first = world.ingest(write_lines(tmp_path / "a.jsonl", rows(10)))
    again = [world.ingest(tmp_path / "a.jsonl", name=name) for name in ("a.jsonl", "b.jsonl")]
    assert [(report.outcome, report.batch_id) for report in again] == [("copy", first.batch_id)] * 2
    assert len(all_of(world, Batch)) == 1
    assert [(row.name, row.outcome) for row in all_of(world, Arrival)] == [("a.jsonl", "accepted"), ("b.jsonl", "copy")]


def test_other_content_under_the_same_name_is_a_batch_of_the_new_rows(local: World, tmp_path: Path) -> None:
    local.ingest(write_lines(tmp_path / "a.jsonl", rows(10)))
    report = local.ingest(write_lines(tmp_path / "a.jsonl", rows(20)))
    assert (report.outcome, report.documents, report.duplicates) == ("accepted", 10, 10)
    assert "came before with other content (batch 1)" in all_of(local, Event)[-1].reason


def test_duplicates_within_and_across_batches_are_dropped(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    first = world.ingest(write_lines(tmp_path / "a.jsonl", rows(10) + rows(4)))
    second = world.ingest(write_lines(tmp_path / "b.jsonl", rows(15)))
    assert (first.documents, first.duplicates, second.documents, second.duplicates) == (10, 4, 5, 10)


def test_a_file_without_anything_new_is_a_copy(local: World, tmp_path: Path) -> None:
    local.ingest(write_lines(tmp_path / "a.jsonl", rows(10)))
    report = local.ingest(write_lines(tmp_path / "b.jsonl", reversed(rows(10))))
    assert (report.outcome, report.duplicates, report.batch_id) == ("copy", 10, None)


def test_the_same_text_with_another_label_is_a_conflict(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either(task="classification")
    labelled = [{"text": text(n), "label": n % 2} for n in range(10)]
    first = world.ingest(write_lines(tmp_path / "a.jsonl", [*labelled, {"text": text(0), "label": "new"}]))
    second = world.ingest(write_lines(tmp_path / "b.jsonl", [{"text": text(1), "label": 0}, *rows_with_label(20)]))
    assert (first.documents, first.conflicts, first.quarantined) == (10, 1, 1)
    assert (second.documents, second.conflicts, second.quarantined) == (20, 1, 1)
    assert [row.line for row in all_of(world, Quarantine)] == [11, 1]


def rows_with_label(count: int) -> list[dict[str, Any]]:
    return [{"text": text(1000 + n), "label": "c"} for n in range(count)]


def test_every_label_of_five_documents_is_in_the_eval_set(local_classes: World, tmp_path: Path) -> None:
    labelled = [{"text": text(n), "label": f"label {n % 8}"} for n in range(48)]
    local_classes.ingest(write_lines(tmp_path / "a.jsonl", labelled))
    (eval_set,) = all_of(local_classes, EvalSet)
    assert eval_set.labels == sorted({row["label"] for row in labelled})


@pytest.fixture
def local_classes(make_local: MakeWorld) -> World:
    return make_local(task="classification")


def test_near_duplicates_stay_on_one_side(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    pairs = [row for n in range(40) for row in ({"text": text(n)}, {"text": near(n)})]
    report = world.ingest(write_lines(tmp_path / "a.jsonl", pairs))
    found = documents(world, report.batch_id)
    assert report.near_duplicates == 40
    assert all(one.split == two.split for one, two in zip(found[::2], found[1::2], strict=True))
    assert len({row.cluster for row in found}) == 40


def test_near_duplicates_of_earlier_rows_take_their_side(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    first = world.ingest(write_lines(tmp_path / "a.jsonl", rows(60)))
    second = world.ingest(write_lines(tmp_path / "b.jsonl", [{"text": near(n)} for n in range(60)]))
    sides = {row.cluster: row.split for row in documents(world, first.batch_id)}
    assert all(sides[row.cluster] == row.split for row in documents(world, second.batch_id))
    assert second.documents + second.leaked == 60
    assert second.heldout == first.heldout


def test_rows_that_match_held_out_ones_but_for_white_space_are_dropped(local: World, tmp_path: Path) -> None:
    report = local.ingest(write_lines(tmp_path / "a.jsonl", rows(60)))
    held = [row.row for row in documents(local, report.batch_id, "heldout")]
    spaced = [{"text": text(n).replace(" ", "  ")} for n in held]
    second = local.ingest(write_lines(tmp_path / "b.jsonl", spaced + rows(20, start=500)))
    assert (second.leaked, second.documents) == (len(held), 20)


def test_rows_of_fixed_sets_and_of_the_anchors_eval_set_are_never_trained_on(
    make_either: MakeWorld, tmp_path: Path
) -> None:
    world = make_either()
    fixed = world.ingest(write_lines(tmp_path / "f.jsonl", rows(8)), name="exam", kind="fixed")
    anchor = world.ingest(write_lines(tmp_path / "n.jsonl", rows(50, start=100)), name="anchor", kind="anchor")
    held = [100 + row.row for row in documents(world, anchor.batch_id, "heldout")]
    again = [{"text": near(n)} for n in range(4)] + rows(2, start=4) + [{"text": text(n)} for n in held]
    data = world.ingest(write_lines(tmp_path / "a.jsonl", again + rows(10, start=900)))
    assert (fixed.train, fixed.heldout, fixed.state) == (0, 8, "trained")
    assert (anchor.heldout, anchor.state) == (5, "trained")
    assert (data.leaked, data.documents) == (6 + 5, 10)
    assert [(row.name, row.kind) for row in all_of(world, EvalSet)][:2] == [("exam", "fixed"), ("anchor", "anchor")]


def test_a_fixed_set_leaves_out_what_was_trained_on(local: World, tmp_path: Path) -> None:
    data = local.ingest(write_lines(tmp_path / "a.jsonl", rows(50)))
    fixed = local.ingest(write_lines(tmp_path / "f.jsonl", rows(60)), name="exam", kind="fixed")
    assert (fixed.leaked, fixed.documents) == (data.train, 10 + data.heldout)


def test_the_anchor_may_be_several_files(local: World, tmp_path: Path) -> None:
    for n in range(3):
        write_lines(tmp_path / f"part{n}.jsonl", rows(10, start=10 * n))
    report = local.ingest(str(tmp_path / "part*.jsonl"), name="anchor", kind="anchor", synthetic=True)
    (batch,) = all_of(local, Batch)
    assert (report.documents, batch.kind, batch.name, batch.synthetic) == (30, "anchor", "anchor", True)


def test_groups_stay_on_one_side_across_batches(make_local: MakeWorld, tmp_path: Path) -> None:
    world = make_local(split={"group_by": "author"})
    grouped = [{"text": text(n), "author": n % 20} for n in range(100)]
    first = world.ingest(write_lines(tmp_path / "a.jsonl", grouped))
    more = [{"text": text(500 + n), "author": n} for n in range(20)]
    second = world.ingest(write_lines(tmp_path / "b.jsonl", more))
    sides: dict[str, set[str]] = {}
    for row in documents(world, first.batch_id) + documents(world, second.batch_id):
        sides.setdefault(row.cluster, set()).add(row.split)
    assert len(sides) == 20
    assert all(len(found) == 1 for found in sides.values())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "the file is empty"),
        ("\n\n", "no rows"),
        ('{"body": "a"}\n' * 3, "no row has a column 'text' .columns: body.; name the right one, e.g. --set source"),
        ('{"text": ""}\nnot json\n', "none of its 2 rows is usable; the first problem is at line 1: blank text"),
    ],
)
def test_a_file_without_documents_is_refused_and_says_why(local: World, tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    report = local.ingest(path)
    assert report.outcome == "refused"
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(report.reason)
    assert [(row.outcome, row.reason) for row in all_of(local, Arrival)] == [("refused", report.reason)]
    assert all_of(local, Batch) == []


def test_a_refused_file_is_taken_once_the_settings_fit(make_local: MakeWorld, tmp_path: Path) -> None:
    world = make_local(limits={"max_rows": 20})
    refused = world.ingest(write_lines(tmp_path / "a.jsonl", rows(21)))
    accepted = world.ingest(write_lines(tmp_path / "a.jsonl", rows(20)))
    assert (refused.outcome, accepted.outcome) == ("refused", "accepted")


def test_quarantine_says_where_and_why(local: World, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.jsonl"
    path.write_text(json.dumps(rows(1)[0]) + '\n{"text": "\x1b[31m\u202eevil"\n')
    report = local.ingest(path)
    (bad,) = all_of(local, Quarantine)
    assert (report.quarantined, report.reasons) == (1, {"not valid JSON": 1})
    assert (bad.batch_id, bad.file, bad.line) == (report.batch_id, "a\\x1b[31m.jsonl", 2)
    assert bad.excerpt == '{"text": "\\x1b[31m\\u202eevil"'


def test_unknown_streams_links_and_folders_are_refused(local: World, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", rows(3))
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(NotFound):
        ingest(local, "nobody", path=path, name="a", actor="test")
    with pytest.raises(BadInput, match="a symbolic link"):
        local.ingest(tmp_path / "link.jsonl")
    with pytest.raises(BadInput, match="a folder; give the files in it"):
        local.ingest(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(BadInput, match="not a regular file"):
        local.ingest(tmp_path / "pipe.jsonl")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 25), max_size=30), max_size=4), st.data())
def test_rows_are_all_accounted_for_and_no_cluster_is_on_both_sides(
    make_local: MakeWorld, tmp_path: Path, batches: list[list[int]], data: st.DataObject
) -> None:
    world = make_local()
    for number, seeds in enumerate(batches):
        records = [{"text": data.draw(st.sampled_from([text(seed), near(seed)]))} for seed in seeds]
        report = world.ingest(write_lines(tmp_path / f"{number}.jsonl", records))
        if report.outcome != "copy" or report.batch_id is None:
            assert report.documents + report.duplicates + report.leaked + report.quarantined == len(records)
        assert report.documents == report.train + report.heldout
    with world.database.read() as session:
        sides = select(func.count(func.distinct(Document.split))).group_by(Document.cluster)
        digests = session.scalar(select(func.count(func.distinct(Document.digest))))
        assert set(session.scalars(sides)) <= {1}
        assert digests == session.scalar(select(func.count(Document.id)))


def test_a_file_that_is_only_measured_on_is_kept_whole_and_guards_nothing(
    make_either: MakeWorld, tmp_path: Path
) -> None:
    world = make_either()
    world.ingest(write_lines(tmp_path / "a.jsonl", rows(20)))
    mine = write_lines(tmp_path / "mine.jsonl", rows(40))
    report = world.ingest(mine, name="file:mine", kind="fixed", ad_hoc=True)
    assert (report.documents, report.leaked) == (40, 0)
    assert [one.active for one in all_of(world, EvalSet) if one.name == "file:mine"] == [False]
    later = world.ingest(write_lines(tmp_path / "b.jsonl", rows(20, start=20)))
    assert (later.documents, later.leaked, later.duplicates) == (20, 0, 0)


def test_a_file_that_is_measured_on_again_is_the_same_set_whatever_its_name(local: World, tmp_path: Path) -> None:
    mine = write_lines(tmp_path / "mine.jsonl", rows(10))
    first = local.ingest(mine, name="file:mine", kind="fixed", ad_hoc=True)
    again = local.ingest(mine, name="file:other", kind="fixed", ad_hoc=True)
    assert (again.outcome, again.batch_id) == ("copy", first.batch_id)
    mine.write_bytes(mine.read_bytes() + b"\n")
    spaced = local.ingest(mine, name="file:mine", kind="fixed", ad_hoc=True)
    (found,) = all_of(local, EvalSet)
    assert (found.members, found.active) == ([first.batch_id, spaced.batch_id], False)
