"""Routing among adapters: the rules of retrieval, banks of classes, files of banks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from strategies.errors import Refused
from strategies.inference.bank import ClassBank
from strategies.inference.bank.adapted import under
from strategies.inference.bank.retrieval import Ask, retrieve
from tests import models
from tests.benchmarks.mos_released import merging_in_forward
from tests.training import banks

Asked = list[list[tuple[int, int]]]
CALM, RED = banks.told(("calm", "angry"), 12, start=50), banks.told(("red", "blue"), 12, start=50)


@pytest.fixture(scope="module")
def classes_at(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    return banks.class_bank(tmp_path_factory.mktemp("classes"), bert)


@pytest.fixture
def classifier(classes_at: Path, bert: Path) -> ClassBank:
    return banks.opened_classes(bert, classes_at)


# --- the rule ----------------------------------------------------------------------------------------------------


def following(moves: dict[int, tuple[int, float]], asked: Asked) -> Ask:
    def ask(rows: Sequence[int], adapters: Sequence[int]) -> list[tuple[int, float]]:
        asked.append(list(zip(rows, adapters, strict=True)))
        return [moves[adapter] for adapter in adapters]

    return ask


def test_a_row_stops_when_its_adapter_keeps_it_and_is_not_asked_again() -> None:
    asked: Asked = []
    found = retrieve([0, 1], following({0: (0, 0.9), 1: (2, 0.5), 2: (2, 0.7)}, asked), rounds=4)
    assert (found.adapters, found.rounds) == ((0, 2), (1, 2))
    assert asked == [[(0, 0), (1, 1)], [(1, 2)]]


@pytest.mark.parametrize(("sure", "kept"), [((0.9, 0.6), 0), ((0.6, 0.9), 1)])
def test_a_row_that_goes_in_a_circle_keeps_the_surest_adapter_of_it(sure: tuple[float, float], kept: int) -> None:
    found = retrieve([0], following({0: (1, sure[0]), 1: (0, sure[1])}, []), rounds=4)
    assert (found.adapters, found.rounds) == ((kept,), (2,))


def test_a_row_that_never_settles_stops_after_four_rounds() -> None:
    asked: Asked = []
    found = retrieve([0], following({place: (place + 1, 0.5) for place in range(9)}, asked), rounds=4)
    assert (found.adapters, len(asked)) == ((4,), 4)


# --- classes -----------------------------------------------------------------------------------------------------


def test_classes_of_separate_worlds_are_routed_right_in_one_round(classifier: ClassBank) -> None:
    found = classifier.route(**banks.classes(classifier, [row["text"] for row in [*CALM, *RED]]))
    assert found.adapters == (0,) * 12 + (1,) * 12
    assert set(found.rounds) == {1}


def test_a_bank_of_classes_knows_all_classes_of_all_tasks(classifier: ClassBank) -> None:
    rows = [*CALM, *RED]
    answers = classifier.classify([row["text"] for row in rows])
    assert [label for label, _ in answers] == [row["label"] for row in rows]
    assert all(0 < sure <= 1 for _, sure in answers)


@torch.inference_mode()
def test_a_batch_of_classes_is_routed_as_its_rows_are_alone(classifier: ClassBank) -> None:
    texts = [row["text"] for row in [*CALM, *RED]]
    together = classifier(**banks.classes(classifier, texts))
    alone = [classifier(**banks.classes(classifier, [text])) for text in texts]
    assert together.adapters == tuple(one.adapters[0] for one in alone)
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), atol=1e-5, rtol=0)


def feature_under(classifier: ClassBank, name: str, text: str) -> torch.Tensor:
    inputs = banks.classes(classifier, [text])
    with under(classifier.body, name):
        return banks.pooled(classifier.body(**inputs).last_hidden_state, inputs["attention_mask"])[0]


def one_by_one(classifier: ClassBank, text: str) -> tuple[int, torch.Tensor]:
    """The adapter and the sum of both answers' probabilities of one text, by the loop of METHODS 3.3 as it is written.

    Of two tasks, t1 has the first two classes.
    """
    first = feature_under(classifier, "t1", text)
    prior = torch.stack([first @ row / (first.norm() * row.norm()) for row in classifier.prototypes])
    at = int(prior.argmax()) // 2
    for _ in range(4):
        logits = classifier.classifier(feature_under(classifier, f"t{at + 1}", text))
        if int(logits.argmax()) // 2 == at:
            break
        at = int(logits.argmax()) // 2
    refined = classifier.classifier(feature_under(classifier, f"t{at + 1}", text))
    return at, refined.softmax(0) + (2 * prior).softmax(0)


@pytest.mark.parametrize("misled", [False, True])
@torch.inference_mode()
def test_the_ensemble_adds_the_refined_answer_and_the_first_adapters_as_many_times_as_there_are_tasks(
    classifier: ClassBank, misled: bool
) -> None:
    if misled:
        classifier.prototypes = classifier.prototypes.roll(2, 0)
    texts = [row["text"] for row in [*CALM, *RED]]
    inputs = banks.classes(classifier, texts)
    assert set(classifier.route(**inputs).rounds) == {1 + misled}
    places, wanted = zip(*(one_by_one(classifier, text) for text in texts), strict=True)
    found = classifier(**inputs)
    assert found.adapters == places
    torch.testing.assert_close(found.logits.exp() * 2, torch.stack(wanted), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_rows_share_a_pass_and_no_feature_is_made_twice(classifier: ClassBank, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[str, ...]] = []
    plain = ClassBank.features

    def counted(bank: ClassBank, inputs: dict[str, torch.Tensor], adapters: Sequence[str]) -> torch.Tensor:
        passes.append(tuple(adapters))
        return plain(bank, inputs, adapters)

    monkeypatch.setattr(ClassBank, "features", counted)
    classifier(**banks.classes(classifier, [row["text"] for row in [*CALM, *RED]]))
    assert passes == [("t1",) * 24, ("t2",) * 12]


@torch.inference_mode()
def test_evaluating_twice_is_evaluating_the_same_model(classifier: ClassBank) -> None:
    inputs = banks.classes(classifier, [row["text"] for row in [*CALM, *RED]])
    first = classifier(**inputs).logits
    assert torch.equal(first, classifier(**inputs).logits)
    assert classifier.changed() == ()


@torch.inference_mode()
def test_the_released_merging_rewrites_stored_adapters_while_it_evaluates(classifier: ClassBank) -> None:
    inputs = banks.classes(classifier, [row["text"] for row in [*CALM, *RED]])
    before = classifier(**inputs).logits
    stored = {name: one.clone() for name, one in classifier.body.named_parameters() if "lora_" in name}
    with merging_in_forward(classifier):
        classifier.features(inputs, ["t1"] * 24)
    for name, live in classifier.body.named_parameters():
        if ".t2." in name:
            first = stored[name.replace(".t2.", ".t1.")]
            torch.testing.assert_close(live - first, 0.9**2 * (stored[name] - first))
    assert classifier.changed() == ("t2",)
    assert not torch.equal(before, classifier(**inputs).logits)


def test_a_class_that_no_task_had_is_never_answered(tmp_path: Path, bert: Path) -> None:
    job = banks.class_job(tmp_path, bert, ("calm", "angry"), known=("other",), name="t1")
    bank = banks.opened_classes(bert, banks.made(tmp_path / "job", job))
    assert bank.labels == ("other", "calm", "angry")
    answer = bank(**banks.classes(bank, ["quiet lake", "other"]))
    assert answer.logits.softmax(1)[:, 0].max() == 0
    assert torch.isfinite(answer.logits).all()


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head.safetensors", "router.safetensors", "adapters/t1/adapter_model.safetensors"])
def test_a_bank_with_a_changed_file_is_refused(tmp_path: Path, classes_at: Path, bert: Path, name: str) -> None:
    shutil.copytree(classes_at, tmp_path / "bank")
    content = bytearray((tmp_path / "bank" / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / "bank" / name).write_bytes(content)
    with pytest.raises(Refused, match=r"t1|head|router"):
        banks.opened(bert, tmp_path / "bank", "classification")


def test_a_bank_on_another_base_is_refused(tmp_path: Path, classes_at: Path) -> None:
    with pytest.raises(Refused, match="another base model"):
        banks.opened(models.bert(tmp_path / "other", seed=8), classes_at, "classification")


def test_a_bank_of_a_newer_format_is_refused_by_name(tmp_path: Path, classes_at: Path, bert: Path) -> None:
    shutil.copytree(classes_at, tmp_path / "bank")
    path = tmp_path / "bank" / "router.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(Refused, match="format that this version cannot read"):
        banks.opened(bert, tmp_path / "bank", "classification")


@pytest.mark.parametrize("change", [{"alpha_pattern": {"query": 4000}}, {"target_modules": ["key"]}])
def test_an_adapter_with_other_settings_is_refused(
    tmp_path: Path, classes_at: Path, bert: Path, change: dict[str, object]
) -> None:
    bank = tmp_path / "bank"
    shutil.copytree(classes_at, bank)
    path = bank / "adapters" / "t1" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(Refused, match=r"t1 of .* is not the one that was stored"):
        banks.opened(bert, bank, "classification")


@pytest.mark.parametrize("change", [{"owners": [1, 1, 0, 0]}, {"rounds": 0}, {"threshold": 0.9}])
def test_a_router_with_other_settings_is_refused(
    tmp_path: Path, classes_at: Path, bert: Path, change: dict[str, object]
) -> None:
    bank = tmp_path / "bank"
    shutil.copytree(classes_at, bank)
    path = bank / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(Refused, match="is not what was stored"):
        banks.opened(bert, bank, "classification")
