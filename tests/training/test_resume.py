"""An interrupted run equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from strategies.jobs.runtime import Stopped
from tests.training import makers

STEPS = 6
Checkpointed = tuple[Path, dict[str, Any]]
LORA = {"kind": "lora", "lora": {"r": 2, "lora_alpha": 4, "lora_dropout": 0.2}}


def jobs(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    if kind == "replay with dropout":
        old = makers.text_documents(20, start=50)
        return makers.train_job(
            tmp_path, request.getfixturevalue("gpt2"), makers.text_documents(20), old=old, steps=STEPS
        )
    if kind == "lora with dropout":
        gpt2 = request.getfixturevalue("gpt2")
        return makers.train_job(tmp_path, gpt2, makers.text_documents(20), selection=LORA, steps=STEPS)
    if kind == "packed answers":
        return makers.train_job(
            tmp_path, request.getfixturevalue("chat"), makers.dialogues(40), task="sft", steps=STEPS
        )
    labels = {"model": {"labels": ["calm", "angry"]}}
    bert = request.getfixturevalue("bert")
    return makers.train_job(tmp_path, bert, makers.labelled(40), task="classification", steps=STEPS, job=labels)


@pytest.mark.parametrize("kind", ["replay with dropout", "lora with dropout", "packed answers", "classes"])
def test_stopping_at_any_step_changes_no_bit(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    job = jobs(tmp_path, kind, request)
    whole = makers.loop(tmp_path / "whole", job)
    whole.train()
    for step in range(1, STEPS):
        with pytest.raises(Stopped):
            makers.loop(tmp_path / f"stopped-{step}", job, stop_at=step).train()
        resumed = makers.loop(tmp_path / f"stopped-{step}", job)
        resumed.train()
        assert resumed.progress.resumed_from == [step]
        makers.assert_equal(makers.weights(resumed), makers.weights(whole))
        assert resumed.progress.log.points == whole.progress.log.points
        assert resumed.progress.mixing == whole.progress.mixing
        assert {n: f.tolist() for n, f in resumed.progress.ledger.drawn.items()} == {
            n: f.tolist() for n, f in whole.progress.ledger.drawn.items()
        }


def wait_for_step(directory: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [int(path.name.partition("-")[2]) for path in (directory / "checkpoints").glob("step-*")]
        if found and max(found) >= step:
            return
        time.sleep(0.005)
    raise AssertionError((directory / "job.log").read_text())


@pytest.mark.slow
def test_a_process_killed_three_times_ends_with_the_same_file(tmp_path: Path, gpt2: Path) -> None:
    old = makers.text_documents(20, start=50)
    job = makers.train_job(tmp_path, gpt2, makers.text_documents(20), old=old, steps=40)
    whole = makers.run(tmp_path / "whole", job)
    saving = json.loads(json.dumps(job))
    saving["work"]["template"]["training"]["save_steps"] = 1
    attempts: list[str] = []
    for step in (5, 12, 20):
        directory = tmp_path / f"killed-{step}"
        process = makers.start(directory, {**saving, "resume_from": attempts})
        wait_for_step(directory, step)
        process.kill()
        process.wait()
        attempts = [str(directory), *attempts]
    last = makers.run(tmp_path / "last", {**job, "resume_from": attempts})
    files = [tmp_path / name / "out/model/model.safetensors" for name in ("whole", "last")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert last.facts["losses"] == whole.facts["losses"]
    assert last.consumed == whole.consumed
    assert len(last.facts["resumed_from"]) == 3


@pytest.fixture
def checkpointed(tmp_path: Path, llama: Path) -> Checkpointed:
    job = makers.train_job(tmp_path, llama, makers.text_documents(20), training={"save_steps": 2})
    with pytest.raises(Stopped):
        makers.loop(tmp_path / "job", job, stop_at=5).train()
    return tmp_path / "job", job


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "weights.safetensors"),
        lambda folder: (folder / "optimizer.safetensors").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "state.json").write_text("{}"),
        lambda folder: (folder / "random.safetensors").write_bytes(b""),
    ],
    ids=["flipped bit", "no moments", "no manifest", "other state", "truncated"],
)
def test_a_damaged_checkpoint_is_passed_over(
    checkpointed: Checkpointed,
    llama: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, job = checkpointed
    damage(folder / "checkpoints" / "step-5")
    resumed = makers.loop(folder, job)
    resumed.train()
    assert resumed.progress.resumed_from == [4]
    assert "step-5" in capsys.readouterr().out
    whole = makers.loop(tmp_path / "whole", job)
    whole.train()
    makers.assert_equal(makers.weights(resumed), makers.weights(whole))


def test_two_checkpoints_are_kept_and_none_is_half_written(checkpointed: Checkpointed) -> None:
    folder, _ = checkpointed
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-4", "step-5"]


def test_checkpoints_hold_json_and_safetensors_only(checkpointed: Checkpointed) -> None:
    folder, _ = checkpointed
    assert {path.suffix for path in (folder / "checkpoints" / "step-5").iterdir()} == {".json", ".safetensors"}


def test_a_checkpoint_of_another_training_is_not_used(checkpointed: Checkpointed, llama: Path) -> None:
    folder, job = checkpointed
    other = makers.loop(folder, {**job, "seed": 6})
    assert not other.resume()


def test_moments_of_an_earlier_stage_are_continued_when_asked(tmp_path: Path, llama: Path) -> None:
    job = makers.train_job(tmp_path, llama, makers.text_documents(20), state=["state/optimizer", "state/mixing"])
    first = makers.carry_out(tmp_path / "first", job)
    saved = tmp_path / "first" / first.artifacts["state/optimizer"]
    job["work"] |= {"optimizer": str(saved), "cursor": str(tmp_path / "first" / first.artifacts["state/mixing"])}
    second, before = makers.loop(tmp_path / "second", job, stop_at=1), load_file(saved / "optimizer.safetensors")
    assert second.progress.mixing["sources"]["batch-1"]["cuts"][0][1] == 24
    seen: dict[str, torch.Tensor] = {}
    second.run.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: makers.gradient(one).clone() for name, one in second.run.parameters.items()})
    )
    with pytest.raises(Stopped):
        second.train()
    for name, parameter in second.run.parameters.items():
        state, gradient = second.run.optimizer.state[parameter], seen[name]
        assert state["step"] == 6 + 1
        mean, square = 0.9 * before[f"{name}.exp_avg"] + 0.1 * gradient, 0.95 * before[f"{name}.exp_avg_sq"]
        torch.testing.assert_close(state["exp_avg"], mean, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(state["exp_avg_sq"], square + 0.05 * gradient**2, rtol=1e-5, atol=1e-12)


def test_training_is_the_same_whoever_asks(tmp_path: Path, gpt2: Path) -> None:
    files = []
    for number, stream in enumerate(("news", "mail"), start=1):
        (tmp_path / stream).mkdir()
        job = makers.train_job(
            tmp_path / stream, gpt2, makers.text_documents(20), job={"job": number, "stream": stream, "name": stream}
        )
        torch.manual_seed(number)
        makers.carry_out(tmp_path / stream / "job", job)
        files.append((tmp_path / stream / "job/out/model/model.safetensors").read_bytes())
    assert files[0] == files[1]
