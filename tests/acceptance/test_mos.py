"""A stream whose strategy is mos, from registration to the exported bank, on tiny real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from storage.artifacts import ArtifactStore
from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
WORDS = {
    "red": "crimson scarlet ruby", "blue": "azure navy cobalt", "green": "emerald olive moss",
    "cat": "purr meow whisker", "dog": "bark fetch leash", "cow": "milk moo pasture",
    "sun": "bright ray noon", "rain": "drizzle puddle cloud", "snow": "flake frost ice",
}  # fmt: skip
TRAINING = (
    *("--strategy", "mos", "--set", "gate.mode=record", "--set", "training.learning_rate=0.01"),
    *("--set", "training.max_length=64", "--set", "training.num_train_epochs=6"),
)


def write_classes(path: Path, labels: tuple[str, ...], *, start: int, each: int = 40) -> Path:
    """Texts whose class can be read off their first words."""
    texts = models.texts(each * len(labels), start=start, words=3)
    rows = [
        {"text": f"{WORDS[label]} {WORDS[label]} {texts[at * each + n]}", "label": label}
        for at, label in enumerate(labels)
        for n in range(each)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def elsewhere(folder: Path, lines: str) -> Any:
    """What a process without this project prints as JSON after the first lines of code in the folder's README."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    said = f"print(json.dumps({lines}))\nassert 'strategies' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import json\n{code}\n{said}"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def evaluated(daemon: Daemon, adapters: int) -> dict[str, str]:
    """Text to predicted class, as the evaluation of the version with so many adapters has it."""
    found: dict[str, str] = {}
    store = ArtifactStore(daemon.home.artifacts)
    for path in daemon.home.jobs.glob("*/*/job.json"):
        spec = json.loads(path.read_text())
        bank = spec["model"]["bank"]
        if spec["work"]["kind"] != "evaluate" or bank is None or len(list(Path(bank).glob("adapters/*"))) != adapters:
            continue
        files = {one["id"]: one["path"] for one in spec["work"]["sets"]}
        stored = json.loads((path.parent / "imported.json").read_text())["results"]
        for score in json.loads((path.parent / "result.json").read_text())["scores"]:
            texts = {row["digest"]: row["text"] for row in pq.read_table(files[score["eval_set"]]).to_pylist()}
            results = pq.read_table(store.path(stored[score["results"]]["hash"])).to_pylist()
            found |= {texts[row["digest"]]: row["predicted"] for row in results}
    return found


def objects(daemon: Daemon, version: str, *, under: str) -> dict[str, str]:
    """Path to object of what a version's bank has in a folder."""
    bank = daemon.json("version", "show", version)["artifacts"]["answer/bank"]
    entries = ArtifactStore(daemon.home.artifacts).read_manifest(bank).entries
    return {entry.path: entry.object_hash for entry in entries if entry.path.startswith(under)}


def test_classes_come_batch_by_batch_and_the_export_answers_as_was_evaluated(daemon: Daemon, tmp_path: Path) -> None:
    model = models.bert(tmp_path / "base")
    daemon.cli("stream", "add", "s", "--model", str(model), "--task", "classification", *TRAINING)
    names = tuple(WORDS)
    for at in range(3):
        path = write_classes(tmp_path / f"{at}.jsonl", names[3 * at : 3 * at + 3], start=200 * at)
        daemon.cli("ingest", "s", str(path))
        daemon.cli("retrain", "s", "--wait", timeout_s=900)
    scores = daemon.json("version", "show", "s@live")["scores"]
    assert min(scores.values()) > 0.8, f"one adapter alone would do as well: {scores}"
    assert objects(daemon, "s/2", under="adapters/t1").items() <= objects(daemon, "s/4", under="adapters/").items()

    predicted = evaluated(daemon, adapters=3)
    texts = sorted(predicted)
    assert len(texts) == 36
    owners = [next(at // 3 for at, label in enumerate(WORDS) if text.startswith(WORDS[label])) for text in texts]
    routed = f"bank.route(**bank.tokenizer({texts!r}, padding=True, return_tensors='pt')).adapters"
    daemon.cli("version", "export", "s@live", str(tmp_path / "out"))
    for folder in (tmp_path / "out", daemon.home.published / "s" / "live"):
        answered, changed, adapters = elsewhere(folder, f"[bank.classify({texts!r}), bank.changed(), {routed}]")
        assert [label for label, _ in answered] == [predicted[text] for text in texts]
        assert changed == []
        assert sum(adapter == owner for adapter, owner in zip(adapters, owners, strict=True)) >= 33

    exported = json.loads(
        daemon.cli("--output", "json", "version", "export", "s/3", str(tmp_path / "p"), "--as-adapter")
    )
    assert exported["form"] == "2 adapters"
    assert all((tmp_path / "p" / name / "adapter_model.safetensors").is_file() for name in ("t1", "t2"))


def test_auto_begins_a_bank_at_the_base_once_new_classes_come_and_goes_on_with_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    model = models.bert(tmp_path / "base")
    automatic = ("--strategy", "auto", *TRAINING[2:])
    daemon.cli("stream", "add", "s", "--model", str(model), "--task", "classification", *automatic)
    names = tuple(WORDS)
    for at in range(3):
        daemon.cli(
            "ingest", "s", str(write_classes(tmp_path / f"{at}.jsonl", names[3 * at : 3 * at + 3], start=200 * at))
        )
        if at == 1:
            preview = daemon.json("retrain", "s", "--dry-run")
            assert [preview["values"][of]["value"] for of in ("choice", "rule")] == ["mos/base", "new classes"]
            assert "3 of the 3 classes in the new batches are new beside 3" in preview["reason"]
        daemon.cli("retrain", "s", "--wait", timeout_s=900)
    strategies = [daemon.json("version", "show", f"s/{number}")["strategy"] for number in (2, 3, 4)]
    assert strategies == ["naive", "mos", "mos"]
    assert {path.split("/")[1] for path in objects(daemon, "s/4", under="adapters/")} == {"t1", "t2"}
    assert objects(daemon, "s/3", under="adapters/t1").items() <= objects(daemon, "s/4", under="adapters/").items()

    texts = [f"{words} {words}" for words in WORDS.values()]
    live = daemon.home.published / "s" / "live"
    answered = elsewhere(live, f"[label for label, _ in bank.classify({texts!r})]")
    assert sum(label == wanted for label, wanted in zip(answered, WORDS, strict=True)) >= 6
    assert set(answered[:6]) <= set(names[:6]), "classes of the first two batches were taught to one adapter"

    daemon.cli("rollback", "s", "--to", "2", "--reason", "the head alone is enough")
    assert daemon.json("version", "show", "s@live")["number"] == 2


def test_a_language_models_bank_goes_back_and_on_from_there(daemon: Daemon, tmp_path: Path) -> None:
    model = models.llama(tmp_path / "base")
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(40))
    daemon.cli("stream", "add", "s", "--model", str(model), "--set", f"anchor={anchor}", *TRAINING)
    for at, words in enumerate(("quiet lake morning rest", "8 6 4 2 0")):
        texts = [f"{words} {words} {rest}" for rest in models.texts(60, start=500 + 100 * at, words=5)]
        daemon.cli("ingest", "s", str(write_jsonl(tmp_path / f"{at}.jsonl", texts)))
        daemon.cli("retrain", "s", "--wait", timeout_s=900)
    assert objects(daemon, "s/3", under="adapters/t2")
    said = elsewhere(daemon.home.published / "s" / "live", "bank.generate('8 6 4', max_new_tokens=4, do_sample=False)")
    daemon.cli("version", "export", "s@live", str(tmp_path / "out"))
    assert elsewhere(tmp_path / "out", "bank.generate('8 6 4', max_new_tokens=4, do_sample=False)") == said

    daemon.cli("rollback", "s", "--reason", "answers got worse")
    daemon.cli("stream", "release-batches", "s")
    preview = daemon.json("retrain", "s", "--dry-run")
    assert preview["values"]["adapter"] == {"value": "t2", "origin": "starts as a copy of t1"}
    refused = daemon.run("retrain", "s", "--strategy", "naive", "--dry-run")
    assert refused.returncode == 2
    assert "choose strategy mos, or retrain" in refused.stderr


def test_instructions_of_two_families_come_to_two_adapters_and_each_prompt_to_one(
    daemon: Daemon, tmp_path: Path
) -> None:
    model = models.llama(tmp_path / "base", chat=True)
    daemon.cli("stream", "add", "s", "--model", str(model), "--task", "sft", *TRAINING)
    for at, (ask, answer) in enumerate((("shout", str.upper), ("count", lambda text: str(len(text))))):
        rows = [
            {"instruction": f"{ask} {ask} {text}", "input": "", "output": answer(text)}
            for text in models.texts(60, start=100 * at, words=5)
        ]
        path = tmp_path / f"{at}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        daemon.cli("ingest", "s", str(path))
        daemon.cli("retrain", "s", "--wait", timeout_s=900)
    base, live = (daemon.json("version", "show", version)["scores"] for version in ("s/1", "s@live"))
    assert all(live[name] < base[name] for name in base), (base, live)
    assert objects(daemon, "s/2", under="adapters/t1").items() <= objects(daemon, "s/3", under="adapters/").items()
    daemon.cli("version", "export", "s@live", str(tmp_path / "out"))
    asked = [f"{ask} {ask} {text}" for ask in ("shout", "count") for text in models.texts(20, start=300, words=5)]
    routes = f"[bank.route(ids, length).adapters[0] for ids, length in map(bank.asked, {asked!r})]"
    call = f"[{routes}, bank.generate({asked[-1]!r}, max_new_tokens=4, do_sample=False)]"
    found = elsewhere(tmp_path / "out", call)
    owners = [0] * 20 + [1] * 20
    pairs = list(zip(found[0], owners, strict=True))
    assert all(routed in (owner, -1) for routed, owner in pairs), "a prompt came to the other family's adapter"
    assert sum(routed == owner for routed, owner in pairs) >= 34, "few are so strange that the base answers"
    assert found == elsewhere(daemon.home.published / "s" / "live", call)
