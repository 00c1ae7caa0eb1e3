"""Every kind of job as the real process that the supervisor starts."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from orchestrator.jobs.identity import handle_of
from strategies.contract import EXIT_CANCELLED, EXIT_REFUSED, JobResult, JobSpec
from strategies.errors import Refused
from strategies.inference.encoding import Encoder
from strategies.jobs.run import work
from strategies.training import data
from tests import models
from tests.training import makers
from tests.training.merges import shifted


def wait_for(condition: Callable[[], object], directory: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (directory / "job.log").read_text()
        time.sleep(0.01)


def log(directory: Path) -> str:
    return (directory / "job.log").read_text()


def test_a_train_job_leaves_a_model_that_transformers_reads(tmp_path: Path, llama: Path) -> None:
    old = makers.text_documents(20, start=50)
    state = ["state/trunk", "state/optimizer", "state/mixing"]
    result = makers.run(
        tmp_path / "job", makers.train_job(tmp_path, llama, makers.text_documents(20), old=old, state=state)
    )
    assert set(result.artifacts) == {"answer/model", *state}
    assert result.artifacts["state/trunk"] == result.artifacts["answer/model"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "job" / "out" / "model")
    assert model.num_parameters() == result.facts["parameters"]
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "job" / "out" / "model").eos_token_id == 0
    trained, replayed = result.consumed
    assert (trained.role, trained.samples, replayed.role, replayed.samples) == ("trained", 18, "replayed", 6)
    bits = np.unpackbits(np.fromfile(tmp_path / "job" / trained.bitmap, np.uint8), bitorder="little")
    assert (int(bits.sum()), len(bits)) == (trained.documents, 24)


def test_a_measure_job_counts_what_training_will_draw(tmp_path: Path, llama: Path) -> None:
    source = makers.source(tmp_path / "b.parquet", makers.text_documents(20), heldout=4)
    work = {"kind": "measure", "sources": [makers.as_json(source)], "training": makers.training(), "documents": 5}
    work["sample"] = {"documents": 3, "tokens": 12, "seed": 3}
    result = makers.run(tmp_path / "job", makers.spec(work, llama))
    (found,) = result.measured
    loop = makers.loop(tmp_path / "t", makers.train_job(tmp_path, llama, makers.text_documents(20)[:16]))
    assert (found.documents, found.rows) == (16, len(loop.collate.sources["batch-1"]))
    assert found.loss == pytest.approx(np.log(512), rel=0.05)
    assert result.samples is not None
    lines = [json.loads(line) for line in (tmp_path / "job" / result.samples).read_text().splitlines()]
    assert 0 < len(lines) <= 3
    assert all(set(line) == {"text"} for line in lines)


def test_old_sources_share_the_tokens_that_the_new_one_and_its_reference_are_scored_on(
    tmp_path: Path, llama: Path
) -> None:
    sources = [
        makers.source(
            tmp_path / f"{name}.parquet",
            makers.text_documents(20, start=20 * at),
            name=name,
            role="old" if at else "new",
        )
        for at, name in enumerate(("batch-9", "batch-7", "batch-1", "batch-2"))
    ]
    told = [makers.as_json(one) for one in sources]
    work = {"kind": "measure", "sources": told, "training": makers.training(), "least": 1}

    def losses(name: str, **changes: int) -> dict[str, float | None]:
        measured = makers.carry_out(tmp_path / name, makers.spec({**work, **changes}, llama)).measured
        return {one.name: one.loss for one in measured}

    third, half = losses("third", tokens=600), losses("half", tokens=400, compared_with=7)
    few, many = losses("few", tokens=200, compared_with=7), losses("many", tokens=1200)
    assert len({few["batch-7"], third["batch-9"], many["batch-9"]}) == 3, "more tokens say more"
    assert [third[name] for name in ("batch-1", "batch-2")] == [half[name] for name in ("batch-1", "batch-2")]
    assert third["batch-7"] == few["batch-7"]
    assert half["batch-7"] == many["batch-7"]
    assert losses("least", tokens=400, least=200, compared_with=7) == half
    assert losses("more", tokens=600, least=1000) == losses("all", tokens=600, least=600)


def test_a_measure_job_reads_and_tokenises_a_source_once_whatever_it_is_divided_into(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [{**one, "domain": ("even", "odd")[at % 2]} for at, one in enumerate(makers.text_documents(9))]
    source = makers.source(tmp_path / "b.parquet", documents)
    hashed = makers.calls(monkeypatch, data, "sha256_file")
    tokenised = makers.calls(monkeypatch, Encoder, "documents")
    work = {"kind": "measure", "sources": [makers.as_json(source)], "training": makers.training(), "divide": "column"}
    (found,) = makers.carry_out(tmp_path / "job", makers.spec(work, llama)).measured
    assert (len(hashed), sum(map(len, tokenised))) == (1, 9)
    assert [(one.name, one.documents) for one in found.classes] == [("even", 5), ("odd", 4)]
    assert sum(one.tokens for one in found.classes) == found.tokens


def evaluated(
    tmp_path: Path,
    model: Path,
    documents: Sequence[dict[str, Any]],
    *,
    task: str = "causal-lm",
    name: str = "job",
    work: dict[str, Any] | None = None,
    carry_out: Callable[[Path, dict[str, Any]], JobResult] = makers.carry_out,
    **training: Any,
) -> tuple[JobResult, dict[str, Any]]:
    file = makers.held(tmp_path / f"{name}.parquet", documents)
    work = {"kind": "evaluate", "sets": [makers.as_json(file)], "training": makers.training(**training), **(work or {})}
    result = carry_out(tmp_path / name, makers.spec(work, model, task=task))
    return result, pq.read_table(tmp_path / name / result.scores[0].results).to_pydict()


def test_a_measure_job_says_how_alike_sources_are_to_the_new_ones(tmp_path: Path, llama: Path) -> None:
    new, twin, other = makers.text_documents(20), makers.text_documents(20), [{"text": "0 1 2 3 4 5 6 7"}] * 3
    sources = [
        makers.source(tmp_path / "batch-1.parquet", new, name="batch-1"),
        makers.source(tmp_path / "anchor.parquet", twin, name="anchor", role="old"),
        makers.source(tmp_path / "batch-0.parquet", other, name="batch-0", role="old"),
    ]
    work = {"kind": "measure", "sources": [makers.as_json(one) for one in sources], "training": makers.training()}
    result = makers.carry_out(tmp_path / "job", makers.spec(work, llama))
    near = {one.name: one.similarity for one in result.measured}
    assert near["batch-1"] == pytest.approx(1)
    assert near["anchor"] == pytest.approx(1)
    assert near["batch-0"] < 0.5


def test_an_evaluate_job_scores_each_document(tmp_path: Path, llama: Path) -> None:
    documents = makers.text_documents(6)
    result, rows = evaluated(tmp_path, llama, documents, carry_out=makers.run)
    (score,) = result.scores
    assert score.metric == "loss"
    assert score.value == pytest.approx(sum(rows["loss"]) / sum(rows["tokens"]))
    judged = [i for i, half in enumerate(rows["half"]) if half == "judge"]
    assert score.value_judge == pytest.approx(
        sum(rows["loss"][i] for i in judged) / sum(rows["tokens"][i] for i in judged)
    )
    assert score.bytes == sum(len(document["text"].encode()) for document in documents)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    model = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    by_digest = {makers.digest(document): document["text"] for document in documents}
    text = by_digest[rows["digest"][0]]
    ids = [0, *tokenizer(text).input_ids]
    assert rows["tokens"][0] == len(ids) - 1
    expected = 0.0
    for start in range(0, len(ids) - 1, 32):
        part = torch.tensor(ids[start : start + 33])[None]
        with torch.no_grad():
            out = model(part[:, :-1]).logits
        expected += float(torch.nn.functional.cross_entropy(out[0], part[0, 1:], reduction="sum"))
    assert rows["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_a_score_does_not_depend_on_its_batch(tmp_path: Path, llama: Path) -> None:
    documents = makers.text_documents(6)
    _, one = evaluated(tmp_path, llama, documents, name="one", per_device_eval_batch_size=1)
    _, all_at_once = evaluated(tmp_path, llama, documents, name="all", per_device_eval_batch_size=16)
    assert one["loss"] == pytest.approx(all_at_once["loss"], rel=1e-5)


def test_classes_are_judged_within_what_each_version_knew(tmp_path: Path) -> None:
    labels = ("calm", "angry", "sad")
    model = shifted(models.bert(tmp_path / "plain", labels=labels), tmp_path / "m", seed=4, size=0.3)
    documents = makers.labelled(24, (*labels, "unheard"))
    work = {"known_labels": {"v1": ["calm", "angry"], "v2": list(labels)}}
    result, rows = evaluated(tmp_path, model, documents, task="classification", work=work)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    of = {makers.digest(document): document for document in documents}
    logits = []
    for digest in rows["digest"]:
        ids = tokenizer(of[digest]["text"], truncation=True, max_length=32, return_tensors="pt").input_ids
        with torch.no_grad():
            logits.append(plain(ids).logits[0])
    table = torch.stack(logits)
    assert rows["label"] == [of[digest]["label"] for digest in rows["digest"]]
    assert rows["predicted"] == [labels[at] for at in table.argmax(1)]
    assert set(rows["predicted"]) == set(labels)
    assert rows["correct"] == [labels[at] == label for at, label in zip(table.argmax(1), rows["label"], strict=True)]
    within = [labels[at] for at in table[:, :2].argmax(1)]
    assert rows["correct_in:v1"] == [found == label for found, label in zip(within, rows["label"], strict=True)]
    assert rows["correct_in:v2"] == rows["correct"]
    assert [loss is None for loss in rows["loss"]] == [label == "unheard" for label in rows["label"]]
    (score,) = result.scores
    assert score.value == pytest.approx(sum(rows["correct"]) / 24)
    assert score.details["unknown"] == 6


def test_answers_are_trained_and_scored(tmp_path: Path, chat: Path) -> None:
    documents = makers.dialogues(24)
    result = makers.carry_out(tmp_path / "t", makers.train_job(tmp_path, chat, documents, task="sft", steps=10))
    assert result.facts["packing"]["passed"]
    before, rows = evaluated(tmp_path, chat, documents[:6], task="sft", name="before", max_length=64)
    after, _ = evaluated(tmp_path, tmp_path / "t/out/model", documents[:6], task="sft", name="after", max_length=64)
    assert after.scores[0].value < before.scores[0].value
    answers = {makers.digest(d): json.loads(d["messages"])[-1]["content"] for d in documents}
    assert rows["bytes"] == [len(answers[digest].encode()) for digest in rows["digest"]]


def test_a_training_document_of_an_eval_set_is_refused(tmp_path: Path, llama: Path) -> None:
    documents = makers.text_documents(12)
    job = makers.train_job(tmp_path, llama, documents)
    job["work"]["forbidden"] = [makers.as_json(makers.held(tmp_path / "anchor.parquet", documents[3:4]))]
    assert makers.start(tmp_path / "job", job).wait(60) == EXIT_REFUSED
    assert "error: 1 training documents of batch-1 are in eval set anchor" in log(tmp_path / "job")
    assert not (tmp_path / "job" / "result.json").exists()


@pytest.mark.parametrize("change", [{"format": 2}, {"surprise": 1}, {"threads": "many"}])
def test_a_job_that_cannot_be_read_is_refused(tmp_path: Path, llama: Path, change: dict[str, Any]) -> None:
    job = {**makers.train_job(tmp_path, llama, makers.text_documents(5)), **change}
    assert makers.start(tmp_path / "job", job).wait(60) == EXIT_REFUSED
    assert log(tmp_path / "job").splitlines()[-1].startswith("error: job.json")


def test_work_of_an_unknown_kind_is_refused(tmp_path: Path, llama: Path) -> None:
    spec = JobSpec.model_validate(makers.train_job(tmp_path, llama, makers.text_documents(5)))
    odd = spec.model_copy(update={"work": spec.work.model_copy(update={"kind": "distil"})})
    with pytest.raises(Refused, match="work of kind distil"):
        work(odd, makers.StopAt(tmp_path))


def endless(tmp_path: Path, model: Path) -> dict[str, Any]:
    return makers.train_job(tmp_path, model, makers.text_documents(20), steps=100_000)


def training(directory: Path) -> bool:
    path = directory / "progress.json"
    return path.exists() and json.loads(path.read_text())["step"] > 0


@pytest.mark.parametrize("how", ["cancel", "SIGTERM", "orphan"])
def test_a_stopped_job_leaves_a_checkpoint(tmp_path: Path, llama: Path, how: str) -> None:
    directory = tmp_path / "job"
    job = {**endless(tmp_path, llama), "orphan_after_s": 1.0 if how == "orphan" else 600.0}
    process = makers.start(directory, job)
    if how == "orphan":
        while not training(directory) and process.poll() is None:
            (directory / "adopted.json").write_text("{}")
            time.sleep(0.05)
    else:
        wait_for(lambda: training(directory), directory)
    if how == "cancel":
        (directory / "cancel").touch()
    elif how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == EXIT_CANCELLED
    (kept,) = (directory / "checkpoints").iterdir()
    assert int(kept.name.partition("-")[2]) > 0
    assert not (directory / "result.json").exists()
    assert log(directory).splitlines()[-1].startswith("stopped: ")


def test_the_heart_beats_before_torch_is_there(tmp_path: Path, llama: Path) -> None:
    directory = tmp_path / "job"
    process = makers.start(directory, endless(tmp_path, llama))
    wait_for(lambda: (directory / "heartbeat.json").exists(), directory)
    beat = json.loads((directory / "heartbeat.json").read_text())
    assert beat["phase"] == "starting"
    found = handle_of(process.pid)
    assert found is not None
    assert (beat["boot_id"], beat["pid"], beat["process_started"]) == (found.boot_id, found.pid, found.started)
    assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    wait_for(lambda: training(directory), directory)
    later = json.loads((directory / "heartbeat.json").read_text())
    assert later["time"] > beat["time"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_set_with_nothing_to_score_leaves_the_others_their_scores(tmp_path: Path, llama: Path) -> None:
    good = makers.held(tmp_path / "good.parquet", makers.text_documents(4))
    bad = makers.held(tmp_path / "bad.parquet", [{"text": ""}], number=2)
    work = {"kind": "evaluate", "sets": [makers.as_json(bad), makers.as_json(good)], "training": makers.training()}
    result = makers.carry_out(tmp_path / "job", makers.spec(work, llama))
    assert [score.name for score in result.scores] == ["good"]
    assert result.facts["unscored"] == ["bad"]
