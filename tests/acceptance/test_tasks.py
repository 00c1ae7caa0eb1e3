"""Every task and tuner from registration to the published folder, on tiny real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

TRAINING = ("--set", "training.max_steps=20", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")


def classes(path: Path, labels: dict[str, str], *, start: int = 0, each: int = 20) -> Path:
    """Texts whose label can be read off their first words."""
    texts = models.texts(each * len(labels), start=start, words=12)
    rows = [
        {"text": f"{words} {texts[at * each + n]}", "label": label}
        for at, (label, words) in enumerate(labels.items())
        for n in range(each)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.slow
def test_a_lora_stream_publishes_what_from_pretrained_reads(daemon: Daemon, tmp_path: Path) -> None:
    import torch
    import transformers

    model = models.llama(tmp_path / "base")
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(40))
    batch = write_jsonl(tmp_path / "batch.jsonl", models.texts(40, start=100))
    daemon.cli(
        *("stream", "add", "s", "--model", str(model), "--set", f"anchor={anchor}", "--set", "gate.mode=record"),
        *("--set", "training.tuner=lora", "--set", "training.learning_rate=0.01", *TRAINING),
    )
    daemon.cli("ingest", "s", str(batch))
    daemon.cli("retrain", "s", "--wait")
    daemon.cli("version", "export", "s@live", str(tmp_path / "merged"))
    daemon.cli("version", "export", "s@live", str(tmp_path / "adapter"), "--as-adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    ids = torch.arange(20).unsqueeze(0)
    live, merged, base = (
        transformers.AutoModelForCausalLM.from_pretrained(folder)(ids).logits.detach()
        for folder in (daemon.home.published / "s" / "live", tmp_path / "merged", model)
    )
    assert torch.allclose(live, merged, atol=1e-4)
    assert not torch.allclose(live, base, atol=1e-3)


@pytest.mark.slow
def test_new_classes_grow_the_head_and_old_ones_are_judged_among_themselves(daemon: Daemon, tmp_path: Path) -> None:
    model = models.bert(tmp_path / "base")
    first = classes(tmp_path / "first.jsonl", {"red": "crimson scarlet", "blue": "azure navy"}, each=100)
    second = classes(tmp_path / "second.jsonl", {"green": "emerald olive"}, start=400, each=100)
    daemon.cli(
        *("stream", "add", "s", "--model", str(model), "--task", "classification", "--set", "gate.mode=record"),
        *("--set", "training.learning_rate=0.003", "--set", "training.max_steps=120", *TRAINING[2:]),
        *("--set", "strategy.name=rewarm-replay", "--set", "strategy.mixing.share=0.5"),
    )
    for path in (first, second):
        daemon.cli("ingest", "s", str(path))
        daemon.cli("retrain", "s", "--wait")
    config = json.loads((daemon.home.published / "s" / "live" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["blue", "red", "green"]
    shown = daemon.json("version", "show", "s@live")
    assert min(shown["scores"].values()) > 0.8, f"one of two classes alone would do as well: {shown['scores']}"
    new, old = shown["verdict"]["details"]["sets"]
    assert [one["role"] for one in (new, old)] == ["new", "old"]
    assert old["changes"][0]["candidate_unrestricted"] is not None, "the old classes were judged among all three"
    assert new["changes"][0]["candidate_unrestricted"] is None


@pytest.mark.slow
def test_instruction_data_in_three_shapes_trains_on_the_answers(daemon: Daemon, tmp_path: Path) -> None:
    model = models.llama(tmp_path / "base", chat=True)
    texts = models.texts(60, words=10)
    rows = [
        {"instruction": text, "input": "", "output": text.upper()} if at % 3 == 0
        else {"prompt": text, "completion": text.upper()} if at % 3 == 1
        else {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text.upper()}]}
        for at, text in enumerate(texts)
    ]  # fmt: skip
    (tmp_path / "batch.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    daemon.cli(
        *("stream", "add", "s", "--model", str(model), "--task", "sft", "--set", "gate.mode=record"),
        *("--set", "training.learning_rate=0.01", *TRAINING),
    )
    kept = daemon.json("ingest", "s", str(tmp_path / "batch.jsonl"))
    assert kept[0]["documents"] == 60
    daemon.cli("retrain", "s", "--wait")
    before, after = (daemon.json("version", "show", f"s/{number}")["scores"] for number in (1, 2))
    assert all(after[name] < before[name] for name in before), (before, after)
