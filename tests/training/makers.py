"""Snapshots, job directories and real job processes for the tests of training."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import BaseModel

from strategies.contract import EvalFile, JobResult, JobSpec, SourceFile, TrainTemplate, TrainWork
from strategies.jobs.preparing import prepare_run
from strategies.jobs.run import work, write_result
from strategies.jobs.runtime import Runtime
from strategies.jobs.train import make_loop
from strategies.mixing.replay import ReplayMixer
from strategies.parts import ReplayMixing
from strategies.training.loop import Loop
from tests.models import texts

ROOT = Path(__file__).parents[2]


def digest(fields: dict[str, Any]) -> str:
    """A document's digest, as ingest computes it."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def snapshot(path: Path, documents: Sequence[dict[str, Any]], *, heldout: int = 0) -> str:
    """A batch snapshot; the last ``heldout`` documents are not for training. Returns its sha256."""
    splits = ["train"] * (len(documents) - heldout) + ["heldout"] * heldout
    return _write(path, documents, {"row": list(range(len(documents))), "split": splits})


def eval_set(path: Path, documents: Sequence[dict[str, Any]]) -> str:
    """An eval set, halved by turns. Returns its sha256."""
    return _write(path, documents, {"half": ["select" if i % 2 else "judge" for i in range(len(documents))]})


def _write(path: Path, documents: Sequence[dict[str, Any]], columns: dict[str, Any]) -> str:
    fields = {name: [document[name] for document in documents] for name in documents[0]}
    table = pa.table({"digest": [digest(document) for document in documents], **columns, **fields})
    pq.write_table(table, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def source(
    path: Path,
    documents: Sequence[dict[str, Any]],
    *,
    name: str = "batch-1",
    role: Literal["new", "old"] = "new",
    **more: Any,
) -> SourceFile:
    """A snapshot on disk and how a job names it."""
    number = int(name.rpartition("-")[2]) if "-" in name else 99
    return SourceFile(name=name, batch=number, path=str(path), sha256=snapshot(path, documents, **more), role=role)


def held(path: Path, documents: Sequence[dict[str, Any]], *, number: int = 1, **more: Any) -> EvalFile:
    """An eval set on disk and how a job names it."""
    return EvalFile(id=number, name=path.stem, path=str(path), sha256=eval_set(path, documents), **more)


def training(**changes: Any) -> dict[str, Any]:
    """Settings of a run that takes a second."""
    return {"max_length": 32, "train_batch_size": 4, "bf16": False, "save_seconds": 1e9, **changes}


def template(
    *, steps: int = 6, task: str = "causal-lm", new: Sequence[str] = ("batch-1",), **changes: Any
) -> dict[str, Any]:
    """A train job of a plan."""
    made = {
        "init": "@live/answer/model",
        "mixing": {"kind": "replay", "new": list(new), "batch": 4, "order": 11, **changes.pop("mixing", {})},
        "selection": changes.pop("selection", {"kind": "full"}),
        "schedule": {"kind": "cosine", "steps": steps, "warmup": 2, "lr": 1e-3, "min_lr": 1e-4},
        "objective": {"kind": task},
        "steps": steps,
        "training": training(**changes.pop("training", {})),
    }
    return {**made, **changes}


def spec(todo: dict[str, Any], folder: Path, *, task: str = "causal-lm", **changes: Any) -> dict[str, Any]:
    """``job.json``."""
    more = changes.pop("model", {})
    made = {
        "format": 1,
        "job": 1,
        "attempt": 1,
        "stream": "news",
        "name": "job",
        "task": task,
        "seed": 5,
        "threads": 1,
        "device": "cpu",
        "model": {"path": str(folder), **more},
        "work": todo,
    }
    return {**made, **changes}


def start(directory: Path, job: dict[str, Any]) -> subprocess.Popen[str]:
    """A real job process."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "job.json").write_text(json.dumps(job))
    with (directory / "job.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "strategies.jobs", str(directory)],
            cwd=directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        )


def carry_out(directory: Path, job: dict[str, Any]) -> JobResult:
    """A job carried out to its end in this process."""
    result = work(JobSpec.model_validate(job), StopAt(directory))
    write_result(directory / "result.json", result)
    return result


def run(directory: Path, job: dict[str, Any]) -> JobResult:
    """A job carried out to its end by a real job process."""
    code = start(directory, job).wait(timeout=120)
    assert code == 0, (directory / "job.log").read_text()
    return JobResult.model_validate_json((directory / "result.json").read_bytes())


def as_json(model: BaseModel) -> dict[str, Any]:
    """A record as JSON values."""
    return model.model_dump(mode="json")


class StopAt(Runtime):
    """Asks the loop to stop after one step, as SIGTERM would, without threads or files."""

    def __init__(self, directory: Path, step: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory)
        self.last = step

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "step" and value and value == getattr(self, "last", None):
            self.stop(f"step {value}")


def loop(directory: Path, job: dict[str, Any], *, stop_at: int | None = None) -> Loop:
    """The job's loop in this process, ready to train."""
    runtime = StopAt(directory, stop_at)
    made = JobSpec.model_validate(job)
    assert isinstance(made.work, TrainWork)
    return make_loop(made, made.work, prepare_run(made, made.work, runtime), runtime)


def template_of(job: dict[str, Any]) -> TrainTemplate:
    """What the job process reads of a train job's template."""
    work = JobSpec.model_validate(job).work
    assert isinstance(work, TrainWork)
    return work.template


def replay(loop: Loop, job: dict[str, Any]) -> ReplayMixer:
    """The job's mixing before its first step, on the loop's rows."""
    mixing = template_of(job).mixing
    assert isinstance(mixing, ReplayMixing)
    return ReplayMixer(mixing, {name: len(rows) for name, rows in loop.collate.sources.items()})


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    """The gradient, which there is."""
    assert parameter.grad is not None
    return parameter.grad


def weights(loop: Loop) -> dict[str, Any]:
    """A copy of what moves."""
    return {name: parameter.detach().clone() for name, parameter in loop.run.parameters.items()}


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def text_documents(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts(count, start=start)]


def dialogues(count: int) -> list[dict[str, Any]]:
    pairs = zip(texts(count, words=9), texts(count, start=900, words=7), strict=True)
    return [
        {"messages": json.dumps([{"role": "user", "content": ask}, {"role": "assistant", "content": answer}])}
        for ask, answer in pairs
    ]


def labelled(count: int, labels: Sequence[str] = ("calm", "angry"), *, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"{labels[i % len(labels)]} {text}", "label": labels[i % len(labels)]}
        for i, text in enumerate(texts(count, start=start, words=12))
    ]


def train_job(
    folder: Path, model: Path, documents: Sequence[dict[str, Any]], *, task: str = "causal-lm", **changes: Any
) -> dict[str, Any]:
    """``job.json`` of a train job on one batch (and an anchor, if its documents are given)."""
    old, job, more = changes.pop("old", None), changes.pop("job", {}), changes.pop("work", {})
    sources = [source(folder / "batch-1.parquet", documents)]
    if old is not None:
        sources.append(source(folder / "anchor.parquet", old, name="anchor", role="old"))
        changes["mixing"] = {"old": {"anchor": "1"}, "share": "0.25", **changes.get("mixing", {})}
    made = {
        "kind": "train",
        "template": template(task=task, **changes),
        "sources": [as_json(one) for one in sources],
        "forbidden": [],
        **more,
    }
    return spec(made, model, task=task, **job)


def calls(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[Any]:
    """The last argument of each call of a function or method from now on; it does what it did."""
    seen: list[Any] = []
    real = getattr(owner, name)

    def recorded(*given: Any) -> Any:
        seen.append(given[-1])
        return real(*given)

    monkeypatch.setattr(owner, name, recorded)
    return seen
