"""Training a task's adapter: where it starts, what moves, how it is merged, what is stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from strategies.consolidation.task_mean import TaskMean
from strategies.contract import ModelFiles
from strategies.errors import BadPlan, BadState, Refused
from strategies.inference.bank import DomainBank
from strategies.inference.bank.adapted import Answer
from strategies.inference.bank.domains import OPENING
from strategies.inference.bank.files import ADAPTER_WEIGHTS, base_digest, read_manifest, stored_digest
from strategies.inference.encoding import Encoder
from strategies.inference.load import load_tokenizer
from strategies.inference.statistics import read_statistics
from strategies.jobs.bank import _prompt, _spans, _spots
from strategies.objective.local import Local, apart
from strategies.schedule import factor
from strategies.settings.objective import LocalObjective
from strategies.training.batches import Batch
from strategies.training.data import training_side
from strategies.training.loop import Loop
from strategies.training.rows import encode_rows
from strategies.training.seams import Run
from tests import models
from tests.training import banks, makers

TWO = ("calm", "angry")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """A bank after its first task."""
    folder = tmp_path_factory.mktemp("first")
    return banks.made(folder / "job", banks.class_job(folder, bert, TWO, name="t1", **banks.hurried(8)))


@pytest.fixture(scope="module")
def domains_at(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    return banks.domain_bank(tmp_path_factory.mktemp("domains"), llama)


def second_job(folder: Path, bert: Path, first: Path, **changes: Any) -> dict[str, Any]:
    more = {"selection": {"start": "t1"}, **banks.hurried(4), **changes}
    return banks.class_job(folder, bert, ("red", "blue"), known=TWO, name="t2", bank=first, **more)


# --- where it starts, what moves ---------------------------------------------------------------------------------


def test_an_adapter_starts_as_a_copy_of_the_task_before(tmp_path: Path, bert: Path, first: Path) -> None:
    loop = makers.loop(tmp_path / "job", second_job(tmp_path, bert, first))
    stored = load_file(first / "adapters" / "t1" / ADAPTER_WEIGHTS)
    live = {name: tensor for name, tensor in makers.weights(loop).items() if "lora_" in name}
    makers.assert_equal({name.removeprefix("body.").replace(".t2", ""): one for name, one in live.items()}, stored)


def test_an_adapter_without_a_start_is_drawn_anew_and_changes_nothing_at_first(
    tmp_path: Path, bert: Path, first: Path
) -> None:
    loop = makers.loop(tmp_path / "job", second_job(tmp_path, bert, first, selection={"start": None}))
    live = {name.removeprefix("body.").replace(".t2", ""): one for name, one in makers.weights(loop).items()}
    stored = load_file(first / "adapters" / "t1" / ADAPTER_WEIGHTS)
    assert len(stored) == 24
    for name, tensor in stored.items():
        assert not live[name].any() if "lora_B" in name else not torch.equal(live[name], tensor)


def test_only_the_adapter_and_the_head_move_and_the_head_at_a_rate_of_its_own(
    tmp_path: Path, bert: Path, first: Path
) -> None:
    """Ten times the adapter's: the tenth of METHODS 3.2 is of plain descent, and AdamW's steps are of another size."""
    loop = makers.loop(tmp_path / "job", second_job(tmp_path, bert, first))
    assert all("lora_" in name or name.startswith("classifier.") for name in loop.run.parameters)
    rates = {id(one): group["base_lr"] for group in loop.run.optimizer.param_groups for one in group["params"]}
    for name, parameter in loop.run.parameters.items():
        assert rates[id(parameter)] == pytest.approx(1e-1 if name.startswith("classifier.") else 1e-2)


def test_a_pooler_that_no_feature_reads_has_no_adapter(first: Path) -> None:
    assert not [name for name in load_file(first / "adapters" / "t1" / ADAPTER_WEIGHTS) if "pooler" in name]


def test_the_head_grows_by_the_new_classes_and_keeps_the_rows_it_had(tmp_path: Path, bert: Path, first: Path) -> None:
    loop = makers.loop(tmp_path / "job", second_job(tmp_path, bert, first))
    head, before = loop.run.parameters["classifier.weight"], load_file(first / "head.safetensors")["weight"]
    assert head.shape == (4, 32)
    assert torch.equal(head[:2], before)
    assert head[2:].abs().max() > 0


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"name": "t1", "start": "t1"}, "already has an adapter t1"),
        ({"start": "t9"}, "t9, which the bank does not have"),
        ({"start": "t1", "lora": {"r": 2, "lora_alpha": 4}}, "another rank"),
        ({"start": "t1", "lora": {"r": 4, "lora_alpha": 4}}, "scaled by 2, the settings say 1"),
        ({"start": "t1", "pooling": "cls"}, "pools features by mean"),
    ],
)
def test_an_adapter_that_does_not_fit_the_bank_is_refused(
    tmp_path: Path, bert: Path, first: Path, selection: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadPlan, match=message):
        makers.loop(tmp_path / "job", second_job(tmp_path, bert, first, selection=selection))


def test_a_base_that_differs_in_its_last_number_alone_has_another_name() -> None:
    base = torch.nn.Linear(40, 50)
    before = base_digest(base)
    assert base_digest(base) == before
    with torch.no_grad():
        base.weight[-1, -1] += 1
    assert base_digest(base) != before


def test_another_base_than_the_banks_is_refused(tmp_path: Path, first: Path) -> None:
    other = models.bert(tmp_path / "other", seed=8)
    with pytest.raises(BadState, match="another base model"):
        makers.loop(tmp_path / "job", second_job(tmp_path, other, first))


@pytest.mark.parametrize("changes", [{"selection": {"kind": "full"}}, {"consolidation": {"kind": "keep"}}])
def test_an_adapter_a_task_and_its_consolidation_come_together(
    tmp_path: Path, bert: Path, changes: dict[str, Any]
) -> None:
    job = banks.class_job(tmp_path, bert, TWO, name="t1")
    job["work"]["template"] |= changes
    with pytest.raises(Refused, match="belong together"):
        makers.carry_out(tmp_path / "job", job)


# --- one task is plain adapter tuning ----------------------------------------------------------------------------


def plain(
    loop: Loop, job: dict[str, Any], model: Path, start: dict[str, torch.Tensor], random: torch.Tensor
) -> tuple[Any, torch.nn.Linear]:
    """What anybody would write with peft: an adapter on the body, a linear layer on its pooled feature."""
    config = peft.LoraConfig(**banks.LORA, target_modules="all-linear", exclude_modules=r"pooler\..*")
    body = peft.get_peft_model(transformers.AutoModel.from_pretrained(model), config)
    head = torch.nn.Linear(32, 2)
    head.load_state_dict({name: start[f"classifier.{name}"] for name in ("weight", "bias")})
    tensors = {name.removeprefix("body.").replace(".t1", ""): one for name, one in start.items() if "lora_" in name}
    peft.set_peft_model_state_dict(body, tensors)
    adapter = [one for one in body.parameters() if one.requires_grad]
    groups = [(adapter, 1e-2, 0.1), ([head.weight, head.bias], 1e-1, 0.0)]
    optimizer = torch.optim.AdamW(
        [{"params": members, "lr": lr, "base": lr, "weight_decay": decay} for members, lr, decay in groups],
        betas=(0.9, 0.95),
        fused=True,
    )
    mixer = makers.replay(loop, job)
    torch.set_rng_state(random)
    body.train()
    for step in range(1, loop.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor(loop.schedule, step)
        (batch,) = loop.collate(mixer.draw(step))
        loss = cross_entropy(logits_of(body, head, batch.inputs), batch.targets, reduction="sum") / batch.weight
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_([*head.parameters(), *adapter], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return body.eval(), head


def logits_of(body: Any, head: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = head(banks.pooled(body(**inputs).last_hidden_state, inputs["attention_mask"]))
    return found


def test_one_task_equals_plain_adapter_tuning_bit_for_bit(tmp_path: Path, bert: Path) -> None:
    job = banks.class_job(tmp_path, bert, TWO, name="t1", objective={"orthogonality": 0}, **banks.hurried(6))
    loop = makers.loop(tmp_path / "loop", job)
    start, random = makers.weights(loop), torch.get_rng_state()
    result = makers.carry_out(tmp_path / "job", job)
    body, head = plain(loop, job, bert, start, random)
    bank = tmp_path / "job/out/bank"
    tuned = {name.replace(".default", ""): one for name, one in body.named_parameters() if one.requires_grad}
    makers.assert_equal(load_file(bank / "adapters/t1" / ADAPTER_WEIGHTS), tuned)
    makers.assert_equal(load_file(bank / "head.safetensors"), {"weight": head.weight, "bias": head.bias})
    assert result.facts["bank"]["align_losses"] == []


def plain_speaker(loop: Loop, job: dict[str, Any], model: Path, start: dict[str, torch.Tensor]) -> Any:
    """What anybody would write with peft for a language model: an adapter, and the next token's loss."""
    config = peft.LoraConfig(**banks.LORA, target_modules="all-linear")
    tuned = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(model), config)
    peft.set_peft_model_state_dict(tuned, {name.replace(".t1", ""): one for name, one in start.items()})
    adapter = [one for one in tuned.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(adapter, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    mixer = makers.replay(loop, job)
    tuned.train()
    for step in range(1, loop.steps + 1):
        optimizer.param_groups[0]["lr"] = 1e-2 * factor(loop.schedule, step)
        (batch,) = loop.collate(mixer.draw(step))
        logits = tuned(**batch.inputs).logits
        loss = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum") / batch.weight
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(adapter, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return tuned.eval()


def test_one_domain_equals_plain_adapter_tuning_bit_for_bit_and_is_answered_by_it(tmp_path: Path, llama: Path) -> None:
    job = banks.domain_job(tmp_path, llama, banks.spoken("calm", 24), name="t1", **banks.hurried(6))
    loop = makers.loop(tmp_path / "loop", job)
    start = makers.weights(loop)
    loop.train()
    tuned = plain_speaker(loop, job, llama, {name: one for name, one in start.items() if "lora_" in name})
    live = {name.replace(".t1.", ".default."): one for name, one in makers.weights(loop).items() if "lora_" in name}
    makers.assert_equal(live, {name: one for name, one in tuned.named_parameters() if one.requires_grad})

    bank = banks.opened_domains(llama, banks.made(tmp_path / "job", job))
    ids, lengths = banks.prompts(bank, [row["text"] for row in banks.spoken("red", 3)])
    with torch.inference_mode():
        answer = bank(input_ids=ids, prompts=lengths)
        torch.testing.assert_close(answer.logits, tuned(input_ids=ids).logits)
    assert answer.adapters == (0, 0, 0)


@torch.inference_mode()
def test_a_bank_of_one_task_answers_as_its_adapter_does(bert: Path, first: Path) -> None:
    bank = banks.opened_classes(bert, first)
    inputs = banks.classes(bank, [row["text"] for row in banks.told(TWO, 8)])
    body = peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(bert), str(first / "adapters" / "t1"))
    torch.testing.assert_close(bank(**inputs).logits, logits_of(body.eval(), bank.classifier, inputs))


# --- the objective -----------------------------------------------------------------------------------------------


def test_features_are_kept_apart_by_the_published_formula() -> None:
    rows = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    similar = rows @ rows.T / 0.8
    wanted = -torch.log_softmax(similar, 1).diagonal().mean()
    assert apart(rows, 0.8, normalise=False) == pytest.approx(float(wanted))
    lengths = rows / rows.norm(dim=1, keepdim=True)
    wanted = -torch.log_softmax(lengths @ lengths.T / 0.8, 1).diagonal().mean()
    assert apart(rows, 0.8, normalise=True) == pytest.approx(float(wanted))


def step_of(tmp_path: Path, bert: Path, first: Path, name: str, **changes: Any) -> tuple[Run, Local, list[Batch]]:
    job = second_job(tmp_path / name, bert, first, **changes)
    loop = makers.loop(tmp_path / name / "job", job)
    loop.run.model.eval()
    assert isinstance(loop.objective, Local)
    loop.objective.begin(loop.run)
    return loop.run, loop.objective, loop.collate(loop.mixing.draw(1))


def test_classes_of_other_tasks_have_no_part_in_the_loss(tmp_path: Path, bert: Path, first: Path) -> None:
    run, objective, micro = step_of(tmp_path, bert, first, "one", objective={"orthogonality": 0})
    loss = objective.gradients(run, micro)
    logits = run.model(**micro[0].inputs).logits[:, 2:].detach()
    assert float(loss) == pytest.approx(float(cross_entropy(logits, micro[0].targets - 2)), rel=1e-5)
    assert not makers.gradient(run.parameters["classifier.weight"])[:2].any()


def test_the_heads_rows_of_other_tasks_stay_as_they_are(tmp_path: Path, bert: Path, first: Path) -> None:
    """AdamW's decay moves what has a gradient of 0, too."""
    loop = makers.loop(tmp_path / "job", second_job(tmp_path, bert, first, training={"weight_decay": 0.5}))
    head = loop.run.parameters["classifier.weight"]
    before = head.detach().clone()
    loop.train()
    assert torch.equal(head[:2], before[:2])
    assert not torch.equal(head[2:], before[2:])


def test_means_of_earlier_classes_stand_with_the_batch(tmp_path: Path, bert: Path, first: Path) -> None:
    run, objective, micro = step_of(tmp_path, bert, first, "one", objective={"orthogonality": 1.0})
    alone = Local(LocalObjective(orthogonality=0), own=(2, 3))
    features = run.model.features(micro[0].inputs)
    means = torch.stack([one.mean.float() for one in read_statistics(first).gaussians.values()])
    wanted = apart(torch.cat([means, features]), 0.8, normalise=True).detach()
    both = [float(one.gradients(run, micro)) for one in (objective, alone)]
    assert both[0] - both[1] == pytest.approx(float(wanted), rel=1e-4)


def test_how_many_rows_go_through_at_once_changes_no_gradient(tmp_path: Path, bert: Path, first: Path) -> None:
    found = []
    for rows in (4, 1):
        run, objective, micro = step_of(
            tmp_path, bert, first, str(rows), training={"per_device_train_batch_size": rows}
        )
        loss = objective.gradients(run, micro)
        found.append((loss, {name: one.grad for name, one in run.parameters.items()}))
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-6, rtol=1e-4)


# --- what is stored ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "merged"), [("epoch", [6, 12, 14]), ("task", [14])])
def test_a_second_task_is_pulled_towards_the_first_and_its_head_aligned(
    tmp_path: Path, bert: Path, first: Path, every: str, merged: list[int]
) -> None:
    """24 rows in batches of 4 are epochs of six steps, of which the last is cut short."""
    merge = {"alpha": 1, "merge_every": every, "space": "factor"}
    job = second_job(tmp_path, bert, first, consolidation=merge, **banks.hurried(14))
    facts = makers.carry_out(tmp_path / "job", job).facts["bank"]
    adapters = tmp_path / "job/out/bank/adapters"
    makers.assert_equal(load_file(adapters / "t2" / ADAPTER_WEIGHTS), load_file(adapters / "t1" / ADAPTER_WEIGHTS))
    assert [one["step"] for one in facts["merges"]] == merged
    assert len(facts["align_losses"]) == 30


def test_the_next_bank_holds_the_earlier_adapter_byte_for_byte(tmp_path: Path, bert: Path, first: Path) -> None:
    before = {path.name: path.read_bytes() for path in (first / "adapters" / "t1").iterdir()}
    bank = banks.made(tmp_path / "job", second_job(tmp_path, bert, first))
    assert {path.name: path.read_bytes() for path in (bank / "adapters" / "t1").iterdir()} == before
    manifest = read_manifest(bank)
    assert manifest.names == ("t1", "t2")
    assert [stored_digest(bank / "adapters" / name) for name in manifest.names] == [
        entry.sha256 for entry in manifest.adapters
    ]
    assert manifest.owners == (0, 0, 1, 1)


def test_prototypes_are_of_the_first_adapter_and_gaussians_of_the_tasks_own(
    tmp_path: Path, bert: Path, first: Path
) -> None:
    bank_at = banks.made(tmp_path / "job", second_job(tmp_path, bert, first))
    bank = banks.opened_classes(bert, bank_at)
    texts = [row["text"] for row in banks.told(("red", "blue"), 24) if row["label"] == "red"]
    inputs = banks.classes(bank, texts)
    found = read_statistics(bank_at)
    with torch.inference_mode():
        means = {name: bank.features(inputs, [name] * len(texts)).mean(0).double() for name in ("t1", "t2")}
    torch.testing.assert_close(found.gaussians["red"].mean, means["t2"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.prototypes["red"].mean, means["t1"], atol=1e-5, rtol=1e-4)
    assert found.prototypes["red"].count == len(texts)


def test_a_class_that_comes_again_in_a_few_documents_keeps_its_adapter(tmp_path: Path, bert: Path, first: Path) -> None:
    rows = [*banks.told(("angry",), 2, start=80), *banks.told(("red",), 12)]
    job = banks.class_job(
        tmp_path, bert, ("red",), known=TWO, rows=rows, name="t2", bank=first, selection={"start": "t1"}
    )
    bank = banks.made(tmp_path / "job", job)
    before, after = read_statistics(first), read_statistics(bank)
    assert read_manifest(bank).owners == (0, 0, 1)
    assert torch.equal(before.gaussians["angry"].covariance, after.gaussians["angry"].covariance)
    assert (before.prototypes["angry"].count, after.prototypes["angry"].count) == (12, 14)


def test_a_class_that_comes_again_belongs_to_the_newest_task(tmp_path: Path, bert: Path, first: Path) -> None:
    job = banks.class_job(
        tmp_path, bert, ("angry", "red"), known=("calm",), name="t2", bank=first, selection={"start": "t1"}
    )
    bank = banks.made(tmp_path / "job", job)
    before, after = read_statistics(first), read_statistics(bank)
    assert read_manifest(bank).owners == (0, 1, 1)
    assert torch.equal(before.gaussians["calm"].mean, after.gaussians["calm"].mean)
    assert (before.prototypes["angry"].count, after.prototypes["angry"].count) == (12, 24)


def task_mean(loop: Loop) -> TaskMean:
    part = loop.parts["consolidation"]
    assert isinstance(part, TaskMean)
    return part


def test_an_interrupted_task_equals_the_uninterrupted_one(tmp_path: Path, bert: Path, first: Path) -> None:
    epochs = {"training": {"save_steps": 1}, "consolidation": {"alpha": 0.5, "space": "delta"}, **banks.hurried(14)}
    job = second_job(tmp_path, bert, first, **epochs)
    whole = makers.loop(tmp_path / "whole", job)
    whole.train()
    cut = makers.loop(tmp_path / "cut", job, stop_at=7)
    with pytest.raises(Exception, match="step 7"):
        cut.train()
    again = makers.loop(tmp_path / "cut", job)
    assert again.train().resumed_from == [7]
    makers.assert_equal(makers.weights(again), makers.weights(whole))
    assert task_mean(again).facts == task_mean(whole).facts


def test_a_packed_row_gives_the_prompts_of_all_its_examples(tmp_path: Path, chat: Path) -> None:
    job = makers.train_job(
        tmp_path,
        chat,
        makers.dialogues(24),
        task="sft",
        training={"max_length": 64},
        selection={**banks.ADAPTER, "name": "t1"},
        consolidation={"kind": "task-mean"},
    )
    result = makers.carry_out(tmp_path / "job", job)
    assert result.facts["packing"]["passed"]
    held = load_file(tmp_path / "job/out/bank/statistics.safetensors")
    assert int(held["t1.count"]) + held["t1.held"].shape[1] == 24


@pytest.mark.parametrize("opens", [False, True])
def test_a_domain_is_measured_by_the_openings_that_its_texts_are_routed_by(
    tmp_path: Path, llama: Path, opens: bool
) -> None:
    encoder = Encoder(load_tokenizer(ModelFiles(path=str(llama))), 32)
    encoder.start = (encoder.opening,) if opens else ()
    documents = training_side(makers.source(tmp_path / "s.parquet", banks.spoken("calm", 12)), "causal-lm")
    rows = encode_rows(documents, encoder, "causal-lm", packing=False, tick=lambda: None)
    asked = [encoder.request(text, "text")[:OPENING] for text in documents.column("text")]
    found = [_prompt(rows, *spot, encoder=encoder).tolist() for spot in _spots(rows, encoder, 256)]
    assert found[:-1] == asked[:-1]
    assert found[-1] == asked[-1][: len(found[-1])], "the last text may be cut where rows end"


def test_a_long_text_is_measured_by_every_window_that_fills_an_opening(tmp_path: Path, llama: Path) -> None:
    encoder = Encoder(load_tokenizer(ModelFiles(path=str(llama))), 32)
    source = makers.source(tmp_path / "s.parquet", [{"text": "calm sea " * 150}])
    rows = encode_rows(training_side(source, "causal-lm"), encoder, "causal-lm", packing=False, tick=lambda: None)
    ((start, stop),) = _spans(rows)
    stream = [encoder.opening, *rows.ids[start + len(encoder.start) : stop - 1].tolist()]
    found = [_prompt(rows, *spot, encoder=encoder).tolist() for spot in _spots(rows, encoder, 32)]
    assert found == [stream[at : at + OPENING] for at in range(0, len(stream) - OPENING + 1, 32)]
    assert len(found) > 1


@pytest.mark.parametrize(("length", "limit"), [(1, 2.0), (4, 2.0), (63, 2.0), (64, 1.0), (200, 1.0)])
def test_how_far_a_prompt_may_be_is_told_by_its_length(
    llama: Path, domains_at: Path, length: int, limit: float
) -> None:
    speaker = banks.opened_domains(llama, domains_at)
    speaker.manifest = dataclasses.replace(speaker.manifest, lengths=(4, 64))
    speaker.distances = torch.tensor([[2.0, 1.0]] * len(speaker.means), dtype=torch.float64)
    features = speaker.means[:1] + 1.0
    plain = speaker._squares(features).sqrt()
    torch.testing.assert_close(speaker.distance(features, torch.tensor([length])), plain / limit)


def test_a_routed_version_is_evaluated_like_any_other(tmp_path: Path, chat: Path) -> None:
    job = makers.train_job(
        tmp_path,
        chat,
        makers.dialogues(24),
        task="sft",
        selection={**banks.ADAPTER, "name": "t1"},
        consolidation={"kind": "task-mean"},
    )
    bank = banks.made(tmp_path / "train", job)
    held = makers.held(tmp_path / "held.parquet", makers.dialogues(6))
    work = {"kind": "evaluate", "sets": [makers.as_json(held)], "training": makers.training()}
    result = makers.carry_out(tmp_path / "job", makers.spec(work, chat, task="sft", model={"bank": str(bank)}))
    plain_work = makers.spec(work, chat, task="sft", model={"adapter": str(bank / "adapters" / "t1")})
    plainly = makers.carry_out(tmp_path / "plain", plain_work)
    assert result.scores[0].value == pytest.approx(plainly.scores[0].value, abs=1e-5)
    assert json.loads((bank / "router.json").read_text())["format"] == 2


def test_scores_of_a_bank_that_something_wrote_to_are_refused(
    tmp_path: Path, llama: Path, domains_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = makers.held(tmp_path / "held.parquet", banks.spoken("calm", 4, start=40))
    work = {"kind": "evaluate", "sets": [makers.as_json(held)], "training": makers.training()}
    plain = DomainBank.forward

    def writing(speaker: DomainBank, *args: Any, **more: Any) -> Answer:
        with torch.no_grad():
            next(one for name, one in speaker.model.named_parameters() if "lora_B.t2" in name).add_(1)
        return plain(speaker, *args, **more)

    monkeypatch.setattr(DomainBank, "forward", writing)
    with pytest.raises(BadState, match="t2 changed while it was evaluated"):
        makers.carry_out(tmp_path / "job", makers.spec(work, llama, model={"bank": str(domains_at)}))
