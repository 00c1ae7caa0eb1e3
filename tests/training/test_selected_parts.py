"""The two parts of a probe's documents: a part's score follows its own documents alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strategies.contract import EvalFile, EvaluateWork, JobSpec
from strategies.jobs.evaluate import selected, selected_parts
from tests.training import makers

TEXTS = [one["text"] for one in makers.text_documents(8)]
OTHERS = [one["text"] for one in makers.text_documents(8, start=500)]


def parts(folder: Path, model: Path, texts: Sequence[str], name: str) -> tuple[float | None, float | None]:
    """The scores of both parts; the digests say the order, whatever the texts are."""
    path = folder / f"{name}.parquet"
    columns = {"digest": [f"{at:064x}" for at in range(len(texts))], "half": ["select"] * len(texts), "text": texts}
    pq.write_table(pa.table(columns), path)
    file = EvalFile(id=1, name="set", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    asked = {"kind": "evaluate", "sets": [makers.as_json(file)], "training": makers.training()}
    spec = JobSpec.model_validate(makers.spec(asked, model))
    assert isinstance(spec.work, EvaluateWork)
    found = selected_parts(spec, spec.work, makers.StopAt(folder / name), documents=len(texts), within={})
    return found["set"][1:]


def test_each_part_of_a_probe_follows_its_own_documents(tmp_path: Path, llama: Path) -> None:
    mixed = {odd: [OTHERS[at] if at % 2 == odd else text for at, text in enumerate(TEXTS)] for odd in (0, 1)}
    first, second = parts(tmp_path, llama, TEXTS, "plain")
    changed_first, same_second = parts(tmp_path, llama, mixed[0], "even")
    same_first, changed_second = parts(tmp_path, llama, mixed[1], "odd")
    assert None not in (first, second)
    assert (same_first, same_second) == pytest.approx((first, second), rel=1e-6)
    assert changed_first != pytest.approx(first, rel=1e-4)
    assert changed_second != pytest.approx(second, rel=1e-4)


def test_a_classifier_has_no_score_on_an_eval_set_without_a_select_half(tmp_path: Path, bert: Path) -> None:
    file = makers.held(tmp_path / "set.parquet", makers.labelled(1))
    asked = {"kind": "evaluate", "sets": [makers.as_json(file)], "training": makers.training()}
    spec = JobSpec.model_validate(makers.spec(asked, bert, task="classification"))
    assert isinstance(spec.work, EvaluateWork)
    assert selected(spec, spec.work, makers.StopAt(tmp_path / "job"), within={}) == {"set": ("accuracy", None)}
