"""Losses on ``select`` halves: those of the evaluate job, of the model as it is, and nothing of ``judge``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from strategies.contract import EvalFile, ModelFiles
from strategies.errors import BadPlan
from strategies.inference import precision as precisions
from strategies.inference.encoding import Encoder
from strategies.inference.load import load
from strategies.inference.score import Scorer
from strategies.jobs.observe import SelectLosses
from strategies.mixing.weighted import WeightedMixer
from strategies.settings import Task
from tests.training import makers
from tests.training.test_observe import mixing

LABELS = ("calm", "angry")


def losses(folder: Path, file: EvalFile, task: Task, *, model: Any = None, **more: Any) -> SelectLosses:
    files = ModelFiles(path=str(folder), labels=LABELS if task == "classification" else ())
    loaded = load(files, task, device=torch.device("cpu"), seed=5)
    model = model or loaded.model
    pad = loaded.tokenizer.pad_token_id
    scorer = Scorer(model=model, precision=precisions.choose(model, False), pad=pad, rows=4, tick=lambda done: None)
    return SelectLosses(
        [file], task, encoder=Encoder(loaded.tokenizer, 32), scorer=scorer, labels=loaded.labels, **more
    )


def evaluated(folder: Path, file: EvalFile, task: Task, directory: Path) -> Any:
    work = {"kind": "evaluate", "sets": [makers.as_json(file)], "training": makers.training()}
    model = {"model": {"labels": LABELS}} if task == "classification" else {}
    (score,) = makers.carry_out(directory, makers.spec(work, folder, task=task, **model)).scores
    return score


@pytest.mark.parametrize(
    ("task", "model", "documents"),
    [("causal-lm", "llama", makers.text_documents(9)), ("sft", "chat", makers.dialogues(9))],
    ids=["texts", "answers"],
)
def test_losses_are_those_of_the_evaluate_job_on_the_select_half(
    tmp_path: Path, task: Task, model: str, documents: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    file = makers.held(tmp_path / "set.parquet", documents)
    score = evaluated(folder, file, task, tmp_path / "job")
    assert losses(folder, file, task)() == {"set": pytest.approx(score.value_select, rel=1e-6)}
    assert score.value_select != pytest.approx(score.value_judge, rel=1e-4)


def test_classes_that_the_model_does_not_know_do_not_count(tmp_path: Path, bert: Path) -> None:
    known = makers.labelled(8)
    halves: Sequence[dict[str, Any]] = [*known, {"text": "x", "label": "calm"}, {"text": "odd", "label": "puzzled"}]
    with_unknown = makers.held(tmp_path / "both.parquet", halves)
    without = makers.held(tmp_path / "known.parquet", known)
    found = [losses(bert, file, "classification")() for file in (with_unknown, without)]
    assert found[0]["both"] == pytest.approx(found[1]["known"], rel=1e-9)


def test_only_the_documents_of_the_lowest_digests_are_measured(tmp_path: Path, llama: Path) -> None:
    documents = makers.text_documents(12)
    file = makers.held(tmp_path / "set.parquet", documents)
    one, two = sorted(documents[1::2], key=makers.digest)[:2]
    both = makers.held(tmp_path / "both.parquet", [documents[0], one, documents[2], two])
    found = losses(llama, file, "causal-lm", documents=2)()
    assert found["set"] == pytest.approx(losses(llama, both, "causal-lm")()["both"], rel=1e-6)


def test_an_eval_set_without_a_select_half_is_refused(tmp_path: Path, llama: Path) -> None:
    file = makers.held(tmp_path / "set.parquet", makers.text_documents(1))
    with pytest.raises(BadPlan, match="anything to measure"):
        losses(llama, file, "causal-lm")


def test_a_run_shows_the_losses_of_the_model_as_it_trains(tmp_path: Path, llama: Path) -> None:
    old = makers.text_documents(20, start=50)
    loop = makers.loop(tmp_path / "job", makers.train_job(tmp_path, llama, makers.text_documents(20), old=old))
    file = makers.held(tmp_path / "set.parquet", makers.text_documents(8, start=90))
    sizes = {name: len(rows) for name, rows in loop.collate.sources.items()}
    constant = mixing().model_copy(update={"reweight": None})
    loop.mixing = WeightedMixer(constant, sizes, steps=loop.steps)
    loop.run.losses = losses(llama, file, "causal-lm", model=loop.run.model)
    loop.train()
    course = [point.losses["set"] for point in loop.mixing.trajectory]
    assert len(course) == 3
    assert course[0] > course[1] > course[2]
