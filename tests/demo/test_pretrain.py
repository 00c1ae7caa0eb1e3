"""The base model of the demonstration: a plain folder, the same bytes every time, a loss that falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.demo import corpus
from strategies.pretrain import Recipe, main


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "english.jsonl"
    corpus.write("english", path, chars=40_000)
    return path


def pretrain(text: Path, out: Path, *, steps: int) -> int:
    return main([str(text), str(out), "--steps", str(steps)])


def test_the_same_text_gives_the_same_model(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [pretrain(text, tmp_path / name, steps=10) for name in ("one", "two")] == [0, 0]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    phases = [json.loads(line)["phase"] for line in capsys.readouterr().out.splitlines()]
    assert phases == ["tokenizer", "train", "train", "done"] * 2


def test_the_loss_falls_and_the_folder_loads(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(text, tmp_path / "base", steps=30)
    losses = [line["loss"] for line in map(json.loads, capsys.readouterr().out.splitlines()) if "loss" in line]
    assert losses[-1] < losses[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.decode(tokenizer("naïve — 模型").input_ids) == "naïve — 模型"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").config.tie_word_embeddings


def test_the_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [Recipe().rate(step) for step in (1, 40, 200, 360)]
    assert rates == pytest.approx([7.5e-5, 3e-3, 1.65e-3, 3e-4])


def test_too_little_text_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text('{"text": "only this"}\n')
    assert pretrain(short, tmp_path / "base", steps=1) == 1
    assert "fewer than one row of 256" in capsys.readouterr().err
