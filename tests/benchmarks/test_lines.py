"""The grids' way to retrain: the chooser's plans, carried out by the jobs' own code, one version after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from strategies.contract import EvalFile, ModelFiles, Plan, Signals
from strategies.inference.encoding import Encoder, Example, messages_of
from strategies.settings import TrainingSettings
from strategies.training.data import eval_side
from tests import models
from tests.benchmarks import classes, domains, lineup, sft, worlds
from tests.benchmarks.classes import ClassCell
from tests.benchmarks.exact import exact_matches
from tests.benchmarks.line import Line, Setting
from tests.benchmarks.lineup import Arm, Cell

# Peft still asks transformers by a name that transformers has deprecated; nothing of ours can change that.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
QUIET = {"train_batch_size": 4, "max_length": 32, "save_seconds": 1e9, "bf16": False}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.llama(tmp_path_factory.mktemp("llama"), chat=True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> domains.Texts:
    folder = tmp_path_factory.mktemp("texts")
    return domains.Texts(llama, worlds.lm_data(folder / "data"), folder / "batches", domains.PRESETS["smoke"])


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> lineup.Stream:
    """Two batches whose held-out documents can be halved."""
    folder = tmp_path_factory.mktemp("longer")
    preset = replace(domains.PRESETS["smoke"], tuning_tokens=9000)
    found = domains.Texts(llama, worlds.lm_data(folder / "data"), folder / "batches", preset)
    return domains.domain_streams(found).tuning


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> lineup.Stream:
    folder = tmp_path_factory.mktemp("tasks")
    data = worlds.class_data(folder / "data") / "cls" / "clinc150"
    return classes.streams(bert, data, folder / "batches", classes.PRESETS["smoke"]).stream


def arm_of(arms: tuple[Arm, ...], name: str) -> Arm:
    return next(one for one in arms if one.name == name)


def carried_out(folder: Path, cell: Cell) -> dict[str, Any]:
    found = cell.carry_out(folder / "line")
    assert not (folder / "line").exists()
    return found


def test_the_trunk_of_the_infinite_schedule_goes_on(tmp_path: Path, texts: domains.Texts) -> None:
    stream, _ = lineup.tuned(domains.domain_streams(texts).tuning)
    arm = arm_of(domains.ARMS, "infinite")
    found = carried_out(tmp_path, Cell(arm=arm, seed=1, rate=1e-3, stream=stream, training=QUIET))
    first, second = found["stages"]
    assert (first["values"]["trunk"], second["values"]["trunk"]) == ("new", "resumed")
    assert first["values"]["replay"] > 0
    assert first["tokens"] > 0
    assert min(first["cpu_s"][kind] for kind in ("measure", "gate", "train")) > 0
    assert 0 < found["select"] < 10


MERGED: dict[str, dict[str, Any]] = {
    "soup": {"method": "soup", "siblings": 2},
    "greedy soup": {"method": "greedy-soup", "siblings": 2},
    "ties": {"method": "ties", "siblings": 2},
    "halfway back": {"method": {"kind": "interpolate", "share": 0.5}},
    "fisher with the start": {"method": "fisher", "siblings": 1},
    "lines": {"method": {"kind": "lines", "alpha": 0.5}},
}


@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize("name", MERGED)
def test_a_stage_may_end_with_a_merge(tmp_path: Path, longer: lineup.Stream, name: str, tuner: str) -> None:
    strategy = {"name": "rewarm-replay", "consolidation": {"kind": "merge", **MERGED[name]}}
    training = {**QUIET, "tuner": tuner, "max_steps": 2}
    arm = Arm(name=name, strategy=strategy)
    first, second = carried_out(tmp_path, Cell(arm=arm, seed=1, rate=1e-2, stream=longer, training=training))["stages"]
    assert first["steps"] == second["steps"] == 2 * first["values"]["siblings"]
    assert f"by {first['values']['merge']}" in first["reason"]


SEARCHES = {
    "doremi": {"kind": "doremi", "share": 0.5},
    "regmix": {"kind": "regmix", "runs": 24, "tokens": 1024, "jobs": 2},
}


@pytest.mark.parametrize("name", ["doremi", pytest.param("regmix", marks=pytest.mark.slow)])
def test_a_stage_may_begin_with_a_search_for_its_mixture(tmp_path: Path, longer: lineup.Stream, name: str) -> None:
    arm = Arm(name=name, strategy={"name": "data-mixing", "mixing": {"reweight": SEARCHES[name]}})
    found = carried_out(tmp_path, Cell(arm=arm, seed=1, rate=1e-3, stream=longer, training=QUIET))
    assert [stage["values"]["reweight"] for stage in found["stages"]] == [name, name]
    assert found["stages"][0]["steps"] > 0


def test_retraining_waits_for_its_batches_and_is_scored_on_what_is_due(tmp_path: Path, texts: domains.Texts) -> None:
    stream = domains.temporal_streams(texts).stream
    arm = Arm(name="retrain", strategy={"name": "retrain"}, every=2)
    found = carried_out(tmp_path, Cell(arm=arm, seed=1, rate=1e-3, stream=stream, training=QUIET))
    assert [stage["batches"] for stage in found["stages"]] == [2, 3]
    assert [bool(stage["scores"]) for stage in found["stages"]] == [False, True]
    assert set(found["base"]) == set(found["stages"][1]["scores"]) == {"novels-en", "1993", "1994", "1995"}


def test_a_cell_is_named_by_what_it_follows_from(texts: domains.Texts) -> None:
    stream = domains.domain_streams(texts).tuning
    arm = arm_of(domains.ARMS, "naive")
    cell = Cell(arm=arm, seed=1, rate=1e-3, stream=stream, training=QUIET)
    same = Cell(arm=arm, seed=1, rate=1e-3, stream=domains.domain_streams(texts).tuning, training=QUIET)
    others = [
        Cell(arm=arm_of(domains.ARMS, "half"), seed=1, rate=1e-3, stream=stream, training=QUIET),
        Cell(arm=arm, seed=2, rate=1e-3, stream=stream, training=QUIET),
        Cell(arm=arm, seed=1, rate=3e-4, stream=stream, training=QUIET),
        Cell(arm=arm, seed=1, rate=1e-3, stream=stream, training={**QUIET, "max_length": 16}),
    ]
    assert cell.facts() == same.facts()
    assert all(one.facts() != cell.facts() for one in others)


@pytest.mark.parametrize("name", ["lora", "mos", "mos, released", "nearest mean", "joint", "joint, all weights"])
def test_classes_come_in_tasks(tmp_path: Path, tasks: lineup.Stream, name: str) -> None:
    training = {**QUIET, "train_batch_size": 8}
    cell = ClassCell(arm=arm_of(classes.ARMS, name), seed=1, rate=1e-2, stream=tasks, training=training)
    stages = carried_out(tmp_path, cell)["stages"]
    names = [list(stage["scores"]) for stage in stages]
    assert names == ([["test-0", "test-1"]] if name.startswith("joint") else [["test-0"], ["test-0", "test-1"]])
    assert all(0 <= value <= 1 for stage in stages for value in stage["scores"].values())


def test_auto_begins_a_bank_where_new_classes_come_to_a_model_with_a_head(tmp_path: Path, tasks: lineup.Stream) -> None:
    arm = Arm(name="auto", strategy={"name": "auto"})
    training = {**QUIET, "train_batch_size": 8}
    found = carried_out(tmp_path, ClassCell(arm=arm, seed=1, rate=1e-2, stream=tasks, training=training))
    first, second = found["stages"]
    assert [first["strategy"], second["strategy"]] == ["naive", "mos"]
    assert second["values"]["rule"] == "new classes"
    assert (second["values"]["adapter"], second["values"]["rows"]) == ("t1", 2 * first["values"]["rows"])
    assert set(second["scores"]) == {"test-0", "test-1"}


def test_a_watched_line_tells_the_chooser_what_was_forgotten(tmp_path: Path, longer: lineup.Stream) -> None:
    seen: list[Signals] = []

    def plan(signals: Signals) -> Plan:
        seen.append(signals)
        return lineup.planner({"name": "naive"})(signals)

    training = TrainingSettings(**QUIET, learning_rate=3e-2)
    setting = Setting(
        task="causal-lm",
        model=longer.model,
        training=training,
        plan=plan,
        anchor=longer.anchor,
        watched=True,
        measured_tokens=longer.measured_tokens,
    )
    line = Line(tmp_path / "line", setting)
    for batch in longer.stages:
        line.retrain([batch])
    first, second = (signals.circumstances for signals in seen)
    assert (first.forgotten, first.decisions) == ((), ())
    assert [one.strategy for one in second.decisions] == ["naive"]
    assert longer.anchor is not None
    anchor = next(one for one in second.forgotten if one.eval_set == longer.anchor.heldout.name)
    assert anchor.rise == pytest.approx(seen[1].anchor_rise)
    line.close()


def test_a_nearest_mean_tells_apart_what_does_not_share_a_word(tmp_path: Path, tasks: lineup.Stream) -> None:
    cell = ClassCell(arm=arm_of(classes.ARMS, "nearest mean"), seed=1, rate=1e-3, stream=tasks, training=QUIET)
    assert min(carried_out(tmp_path, cell)["stages"][-1]["scores"].values()) > 0.5


def taught(folder: Path, llama: Path, example: Example) -> ModelFiles:
    """A model that has learned one example by heart."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits = model(input_ids=torch.tensor([example[0]])).logits[0]
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, torch.tensor(example[1])))
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    return ModelFiles(path=str(folder))


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> EvalFile:
    folder = tmp_path_factory.mktemp("answered")
    data = worlds.sft_data(folder / "data") / "sft"
    return sft.streams(llama, data, folder / "batches", sft.PRESETS["smoke"]).stream.fixed[0]


def test_exact_matches_are_what_greedy_decoding_gives(tmp_path: Path, llama: Path, answered: EvalFile) -> None:
    dialogues = messages_of(eval_side(answered, "sft").column("messages"))
    examples = Encoder(transformers.AutoTokenizer.from_pretrained(llama), 32).dialogues(dialogues)
    files = taught(tmp_path / "taught", llama, examples[0])
    model = transformers.AutoModelForCausalLM.from_pretrained(files.path)
    matched = 0
    for ids, targets in examples:
        answer = [target for target in targets if target >= 0]
        said = ids[: len(ids) - len(answer)]
        for _ in answer:
            said = [*said, int(model(input_ids=torch.tensor([said])).logits[0, -1].argmax())]
        matched += said[len(ids) - len(answer) :] == answer
    assert exact_matches(files, answered, TrainingSettings(max_length=32)) == matched / len(dialogues)
    assert matched >= 1


def test_an_answer_that_was_cut_is_no_exact_match(tmp_path: Path, llama: Path, answered: EvalFile) -> None:
    dialogues = messages_of(eval_side(answered, "sft").column("messages"))[:1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    ((_, targets),) = Encoder(tokenizer, 32).dialogues(dialogues)
    length = sum(target >= 0 for target in targets)
    (cut,) = Encoder(tokenizer, length).dialogues(dialogues)
    files = taught(tmp_path / "taught", llama, cut)
    assert exact_matches(files, answered, TrainingSettings(max_length=length)) == 0
