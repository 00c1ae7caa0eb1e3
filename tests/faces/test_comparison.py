"""Documents that changed sides between two versions, where one of them did not know the class."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.service.views.comparison import Change, _change, _largest, compare
from storage import chain
from storage.tables import Version
from tests.faces.face import Face
from tests.faces.rows import ID, add_stream


def result(loss: float | None, predicted: str, correct: bool) -> dict[str, Any]:
    return {"loss": loss, "predicted": predicted, "correct": correct}


def change(a: dict[str, Any], b: dict[str, Any], digest: str = "d") -> Change:
    return _change(digest, a, b, metric="accuracy", rise=0.1)


@pytest.mark.parametrize(
    ("a", "b", "direction"),
    [
        (result(None, "calm", False), result(0.1, "sad", True), "better"),
        (result(0.1, "sad", True), result(None, "calm", False), "worse"),
        (result(None, "calm", False), result(None, "calm", False), "same"),
    ],
)
def test_a_class_that_a_version_did_not_know_is_compared_by_correctness(
    a: dict[str, Any], b: dict[str, Any], direction: str
) -> None:
    assert change(a, b).direction == direction


def test_the_documents_that_moved_most_are_shown_first_in_both_directions() -> None:
    moves = {"little": 0.9, "much": 0.1, "from nothing": None}
    for first in (True, False):
        found = []
        for digest, loss in moves.items():
            before, after = result(1.0, "x", True), result(loss, "y", False)
            found.append(change(before, after, digest) if first else change(after, before, digest))
        assert [one.digest for one in _largest(found)] == ["from nothing", "much", "little"]


def test_two_roots_differ_in_the_model_that_they_were_read_from(face: Face) -> None:
    with face.app.database.write() as session:
        add_stream(session)
        for number, strategy in ((1, "base"), (2, "rebase")):
            facts = {"source": f"model-{number}"}
            values = {"stream_id": ID, "number": number, "state": "retired", "strategy": strategy, "facts": facts}
            chain.append(session, Version(model_hash="m" * 64, **values))
    found = {one.key: (one.a, one.b) for one in compare(face.app, "news", 1, 2).settings}
    assert found["model"] == ("model-1", "model-2")
