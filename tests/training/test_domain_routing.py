"""Routing of texts and requests among a language model's adapters (METHODS 3.7)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from strategies.inference.bank import BadBank, DomainBank
from strategies.inference.bank.adapted import BASE, Answer, under
from strategies.inference.bank.domains import NEVER, Looked, Prompts, Routed, prompt_lengths
from strategies.inference.encoding import IGNORED, Encoder
from strategies.inference.precision import choose
from strategies.inference.score import Scorer
from tests import models
from tests.training import banks


@pytest.fixture(scope="module")
def domains_at(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    return banks.domain_bank(tmp_path_factory.mktemp("domains"), llama)


@pytest.fixture
def speaker(domains_at: Path, llama: Path) -> DomainBank:
    return banks.opened_domains(llama, domains_at)


def said(label: str) -> list[str]:
    return [row["text"] for row in banks.spoken(label, 8, start=40)]


def loss_under(speaker: DomainBank, name: str, prompt: torch.Tensor) -> float:
    with under(speaker.model, name):
        logits = speaker.model(input_ids=prompt).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, prompt[0, 1:]))


def prior_of(speaker: DomainBank, prompt: torch.Tensor) -> torch.Tensor:
    """Log prior of one prompt, written out: the base's hidden states at two thirds of its two layers and at the end."""
    with under(speaker.model, BASE):
        hidden = speaker.model(input_ids=prompt, output_hidden_states=True).hidden_states
    parts = [hidden[at][0].double().mean(0) for at in (1, 2)]
    z = torch.cat([part / part.norm() for part in parts]) / 2**0.5
    if speaker.manifest.prior == "cosine":
        return torch.stack([2 * (z @ mean) / (z.norm() * mean.norm()) for mean in speaker.means])
    precision = torch.linalg.inv(speaker.factor @ speaker.factor.T)
    return torch.stack([-0.5 * (z - mean) @ precision @ (z - mean) for mean in speaker.means])


def refined_of(speaker: DomainBank, prompt: torch.Tensor) -> torch.Tensor:
    """What each adapter gains on one prompt, in standard deviations of what it gains on its own domain's."""
    gains = [loss_under(speaker, BASE, prompt) - loss_under(speaker, name, prompt) for name in ("t1", "t2")]
    return (torch.tensor(gains).double() - speaker.gains[:, 0]) / speaker.gains[:, 1]


def opening(speaker: DomainBank, text: str) -> torch.Tensor:
    ids, length = speaker.asked(text)
    return ids[:, : int(length)]


@pytest.mark.parametrize("prior", ["cosine", "gaussian"])
@torch.inference_mode()
def test_the_posterior_is_the_mean_of_the_priors_and_the_refined_probabilities(
    speaker: DomainBank, prior: Literal["cosine", "gaussian"]
) -> None:
    speaker.manifest = replace(speaker.manifest, prior=prior)
    # Wide spreads, so that neither is certain of anything.
    speaker.factor *= 15
    speaker.gains[:, 1] *= 15
    texts = [text for label in ("calm", "red", "angry") for text in said(label)[:3]]
    pairs = [(refined_of(speaker, one), prior_of(speaker, one)) for one in (opening(speaker, text) for text in texts)]
    wanted = torch.stack([(refined.softmax(0) + first.softmax(0)) / 2 for refined, first in pairs])
    found = speaker.route(*banks.prompts(speaker, texts)).posterior
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_prompt_less_probable_everywhere_than_the_threshold_goes_to_the_base(speaker: DomainBank) -> None:
    speaker.manifest = replace(speaker.manifest, prior="cosine")
    asked = banks.prompts(speaker, [*said("calm"), *said("red")])
    sure = speaker.route(*asked).posterior.max(1).values
    speaker.manifest = replace(speaker.manifest, threshold=float(sure.median()))
    wanted = [place if one >= sure.median() else -1 for place, one in zip([0] * 8 + [1] * 8, sure, strict=True)]
    assert speaker.route(*asked).adapters == tuple(wanted)
    assert set(wanted) == {-1, 0, 1}
    speaker.manifest = replace(speaker.manifest, threshold=1.01)
    assert set(speaker.route(*asked).adapters) == {-1}


@torch.inference_mode()
def test_a_prompt_of_one_of_many_domains_that_are_alike_goes_to_one_of_them(
    speaker: DomainBank, domains_at: Path
) -> None:
    """Each of them has a small part of the probability; none is far."""
    asked = banks.prompts(speaker, said("calm"))
    inside = [place == 0 for place in speaker.route(*asked).adapters]
    vectors = {name: getattr(speaker, name)[:1].repeat(9, *(1,) * (getattr(speaker, name).ndim - 1))
               for name in ("means", "gains", "distances")}  # fmt: skip
    alike = DomainBank(
        speaker.model,
        {**vectors, "factor": speaker.factor},
        manifest=replace(speaker.manifest, adapters=speaker.manifest.adapters[:1] * 9),
        folder=domains_at,
    )
    found = alike.route(*asked)
    assert found.posterior.max() < 0.3
    assert any(inside)
    assert [place >= 0 for place in found.adapters] == inside


@pytest.mark.parametrize("prior", ["cosine", "gaussian"])
@torch.inference_mode()
def test_domains_of_separate_worlds_are_told_by_the_prior_and_refinement_asks_each_once(
    tmp_path: Path, llama: Path, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode(mode=False):
        bank = banks.opened_domains(llama, banks.domain_bank(tmp_path, llama, prior=prior))
    asked: list[tuple[int, int]] = []
    ask = bank._ask

    def kept(prompts: Prompts, looked: Looked, scores: torch.Tensor, pairs: list[tuple[int, int]]) -> None:
        asked.extend(pairs)
        ask(prompts, looked, scores, pairs)

    monkeypatch.setattr(bank, "_ask", kept)
    texts = [*said("calm"), *said("red")]
    found = bank.route(*banks.prompts(bank, texts))
    assert [int(prior_of(bank, opening(bank, text)).argmax()) for text in texts] == [0] * 8 + [1] * 8
    assert found.adapters == (0,) * 8 + (1,) * 8
    assert sorted(asked) == [(row, domain) for row in range(16) for domain in (0, 1)]


@torch.inference_mode()
def test_a_batch_of_prompts_is_routed_as_its_rows_are_alone(speaker: DomainBank) -> None:
    texts = [text[: 40 + 7 * at] for at, text in enumerate([*said("calm"), *said("red"), *said("angry")])]
    together = speaker.route(*banks.prompts(speaker, texts))
    alone = [speaker.route(*banks.prompts(speaker, [text])) for text in texts]
    assert together.adapters == tuple(one.adapters[0] for one in alone)
    torch.testing.assert_close(together.posterior, torch.cat([one.posterior for one in alone]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_batch_of_domains_is_answered_as_its_rows_are_alone(speaker: DomainBank) -> None:
    ids, lengths = banks.prompts(speaker, [*said("calm")[:4], *said("red")[:4]])
    together = speaker(input_ids=ids, prompts=lengths)
    assert set(together.adapters) == {0, 1}
    for at, length in enumerate(lengths.tolist()):
        alone = speaker(input_ids=ids[at : at + 1, :length], prompts=lengths[at : at + 1])
        torch.testing.assert_close(together.logits[at, :length], alone.logits[0], atol=1e-5, rtol=0)


def test_a_prompt_of_no_domain_goes_to_the_base_model(speaker: DomainBank) -> None:
    ids, lengths = banks.prompts(speaker, said("angry"))
    assert set(speaker.route(ids, lengths).adapters) == {-1}
    with torch.inference_mode(), speaker.model.disable_adapter():
        plain = speaker.model(input_ids=ids).logits
    with torch.inference_mode():
        answer = speaker(input_ids=ids, prompts=lengths)
    torch.testing.assert_close(answer.logits, plain, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_prompt_out_of_reach_of_the_domain_that_it_fits_best_goes_to_the_base_however_near_another_is(
    speaker: DomainBank,
) -> None:
    speaker.distances[0], speaker.distances[1] = 1e-3, 1e3
    asked = banks.prompts(speaker, [*said("calm"), *said("red")])
    assert speaker.route(*asked).adapters == (-1,) * 8 + (1,) * 8


def test_an_answer_keeps_the_adapter_that_its_prompt_was_routed_to(
    speaker: DomainBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    plain = DomainBank.route

    def counted(bank: DomainBank, *given: torch.Tensor) -> Routed:
        calls.append(1)
        return plain(bank, *given)

    monkeypatch.setattr(DomainBank, "route", counted)
    spoken = speaker.generate(said("red")[0], max_new_tokens=5, do_sample=False)
    ids, _ = speaker.asked(said("red")[0])
    speaker.model.set_adapter("t2", inference_mode=True)
    wanted = speaker.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, pad_token_id=1
    )
    assert spoken == speaker.tokenizer.decode(wanted[0, ids.shape[1] :], skip_special_tokens=True)
    assert len(calls) == 1


@torch.inference_mode()
def test_evaluating_domains_leaves_every_adapter_as_it_was(speaker: DomainBank) -> None:
    ids, lengths = banks.prompts(speaker, [*said("calm"), *said("red")])
    first = speaker(input_ids=ids, prompts=lengths).logits
    assert torch.equal(first, speaker(input_ids=ids, prompts=lengths).logits)
    assert speaker.changed() == ()


def test_each_text_is_scored_under_the_adapter_of_its_own_prompt(speaker: DomainBank) -> None:
    asked = [speaker.asked(text)[0][0].tolist() for text in [*said("calm")[:3], *said("red")[:3]]]
    ids = [one[:length] for one, length in zip(asked, (90, 70, 80, 75, 66, 78), strict=True)]
    examples = [(one[:-1], one[1:]) for one in ids]
    precision = choose(speaker, bf16=False)
    scorer = Scorer(model=speaker, precision=precision, pad=1, rows=4, tick=lambda done: None)
    sums, counts = scorer.losses(examples)
    for at, (inputs, targets) in enumerate(examples):
        speaker.model.set_adapter("t1" if at < 3 else "t2", inference_mode=True)
        logits = speaker.model(input_ids=torch.tensor([inputs])).logits[0]
        wanted = torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum").item()
        assert sums[at] == pytest.approx(wanted, abs=1e-4)
    assert counts.tolist() == [len(one) - 1 for one in ids]


PRIOR = torch.tensor([[0.1, 0.9, 0.5, 0.2, 0.3]], dtype=torch.float64)


def answering(speaker: DomainBank, monkeypatch: pytest.MonkeyPatch, scored: list[float], *, rounds: int) -> list[int]:
    """Five domains that answer as ``scored``; the ones that were asked are added to the list that comes back."""
    asked: list[int] = []

    def ask(prompts: object, looked: object, scores: torch.Tensor, pairs: list[tuple[int, int]]) -> None:
        asked.extend(domain for _, domain in pairs)
        for row, domain in pairs:
            scores[row, domain] = scored[domain]

    monkeypatch.setattr(speaker, "_ask", ask)
    speaker.means = torch.zeros(5, 1)
    speaker.manifest = replace(speaker.manifest, rounds=rounds)
    return asked


@pytest.mark.parametrize(
    ("rounds", "expected"), [(1, [1, 2]), (2, [1, 2, 4]), (4, [1, 2, 4, 3, 0]), (9, [1, 2, 4, 3, 0])]
)
def test_the_best_domains_by_the_prior_are_asked_once_each(
    speaker: DomainBank, monkeypatch: pytest.MonkeyPatch, rounds: int, expected: list[int]
) -> None:
    asked = answering(speaker, monkeypatch, [0.0, -1, -2, -3, -4], rounds=rounds)
    scores = speaker._refined(None, None, PRIOR)  # type: ignore[arg-type]
    assert asked == expected
    assert scores[0].tolist() == [[0.0, -1, -2, -3, -4][at] if at in expected else NEVER for at in range(5)]


def test_the_right_domain_is_found_in_third_place_by_the_prior(
    speaker: DomainBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(speaker, monkeypatch, [-5.0, 0.0, -4.0, -5.0, 6.0], rounds=4)
    monkeypatch.setattr(speaker, "prior", lambda features: PRIOR)
    monkeypatch.setattr(speaker, "distance", lambda features, lengths: torch.zeros(1, 5))
    found = speaker.route(*banks.prompts(speaker, ["quiet lake"]))
    assert found.adapters == (4,)
    assert found.posterior[0].tolist() == pytest.approx([0.070991, 0.159212, 0.105917, 0.078457, 0.585423], abs=1e-6)


def test_the_prompt_is_what_stands_before_the_first_target_that_counts() -> None:
    answered = [-100, -100, 7, 8, -100, -100]
    text = [5, 6, 7, 8, 9, -100]
    assert prompt_lengths(torch.tensor([answered, text])).tolist() == [3, 5]


def test_an_answer_that_leaves_room_for_one_token_of_its_prompt_is_routed_by_that_token() -> None:
    answer_alone = [7, 8, 9, 9, 9, -100]
    assert prompt_lengths(torch.tensor([answer_alone]), prompted=True).tolist() == [1]


# --- what is asked -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["plain", "template"])
def answerer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DomainBank:
    """A bank of dialogues whose tokenizer has no chat template, or has one."""
    model = models.llama(tmp_path_factory.mktemp("base"), chat=request.param == "template")
    bank = banks.opened_domains(model, banks.dialogue_bank(tmp_path_factory.mktemp(request.param), model), "sft")
    assert bank.manifest.form == request.param
    return bank


@pytest.mark.parametrize("label", ["calm", "red"])
@torch.inference_mode()
def test_a_request_is_written_and_routed_as_the_same_row_is_scored(
    answerer: DomainBank, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    dialogue = json.loads(banks.asked(label, 1, start=40)[0]["messages"])
    (example,) = Encoder(answerer.tokenizer, 128).dialogues([dialogue])
    first = next(at for at, target in enumerate(example[1]) if target != IGNORED)
    answers: list[Answer] = []
    forward, generate = DomainBank.forward, answerer.model.generate

    def kept(*a: Any, **k: Any) -> Answer:
        answers.append(forward(*a, **k))
        return answers[-1]

    monkeypatch.setattr(DomainBank, "forward", kept)
    scorer = Scorer(model=answerer, precision=choose(answerer, bf16=False), pad=1, rows=4, tick=lambda done: None)
    scorer.losses([example])
    (scored,) = answers
    assert scored.adapters == ({"calm": 0, "red": 1}[label],)

    given: dict[str, Any] = {}
    monkeypatch.setattr(answerer.model, "generate", lambda **options: given.update(options) or generate(**options))
    said = answerer.generate(dialogue[0]["content"], max_new_tokens=1, do_sample=False)
    assert given["adapter_names"] == [answerer.name(scored.adapters[0])]
    assert given["input_ids"].tolist() == [example[0][: first + 1]]
    logits = answerer.model(input_ids=given["input_ids"], adapter_names=given["adapter_names"]).logits
    torch.testing.assert_close(logits[0, -1], scored.logits[0, first], atol=1e-5, rtol=0)
    assert said == answerer.tokenizer.decode(scored.logits[0, first].argmax(), skip_special_tokens=True)
    assert answerer.generate(dialogue[:1], max_new_tokens=1, do_sample=False) == said


def test_special_tokens_spelled_out_in_a_request_are_ordinary_tokens(answerer: DomainBank) -> None:
    question = "before <|endoftext|> and <|assistant|> after <|end|>"
    dialogue = [{"role": "user", "content": question}, {"role": "assistant", "content": "answer"}]
    ((ids, targets),) = Encoder(answerer.tokenizer, 128).dialogues([dialogue])
    first = next(at for at, target in enumerate(targets) if target != IGNORED)
    assert answerer.asked(question)[0].tolist() == [ids[: first + 1]]


@torch.inference_mode()
def test_an_answer_does_not_route_its_own_row(answerer: DomainBank) -> None:
    answers = [" ".join([banks.WORLDS[label]] * 40) for label in ("calm", "red")]
    dialogues = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": one}] for one in answers]
    examples = Encoder(answerer.tokenizer, 32).dialogues(dialogues)
    targets = torch.tensor([targets for _, targets in examples])
    assert answerer.prompts(targets).tolist() == [1, 1]
    posterior = answerer.route(torch.tensor([ids for ids, _ in examples]), answerer.prompts(targets)).posterior
    assert torch.equal(posterior[0], posterior[1])


def test_a_long_request_goes_where_its_row_goes(tmp_path: Path, llama: Path) -> None:
    """Rows lose the oldest tokens of a long prompt, a request loses none."""
    settings = {"task": "sft", "training": {"max_length": 64}, **banks.hurried(16)}
    first = banks.made(
        tmp_path / "1", banks.domain_job(tmp_path / "a", llama, lengthy("angry", "calm", 40), name="t1", **settings)
    )
    start = {"bank": first, "selection": {"start": "t1"}}
    job = banks.domain_job(tmp_path / "b", llama, lengthy("blue", "red", 40), name="t2", **start, **settings)
    bank = banks.opened(llama, banks.made(tmp_path / "2", job), "sft")
    encoder = Encoder(bank.tokenizer, bank.manifest.max_length)
    for place, rows in enumerate([lengthy("angry", "calm", 6, start=500), lengthy("blue", "red", 6, start=500)]):
        dialogues = [json.loads(row["messages"]) for row in rows]
        for dialogue, (ids, targets) in zip(dialogues, encoder.dialogues(dialogues), strict=True):
            request, length = bank.asked(dialogue[0]["content"])
            scored = bank.route(torch.tensor([ids]), bank.prompts(torch.tensor([targets])))
            served = bank.route(request, length)
            assert request.shape[1] > 2 * bank.manifest.max_length
            assert served.adapters == scored.adapters == (place,)
            torch.testing.assert_close(served.posterior, scored.posterior)


def lengthy(head: str, tail: str, count: int, *, start: int = 0) -> list[dict[str, str]]:
    """Dialogues that ask at length, of one world and then another."""
    found = []
    for at in range(start, start + count):
        before, after = banks.spoken(head, 1, start=at)[0]["text"], banks.spoken(tail, 1, start=at)[0]["text"]
        asked = {"role": "user", "content": f"{before} {before} {after}"}
        found.append({"messages": json.dumps([asked, {"role": "assistant", "content": f"{tail} {after[-9:]}"}])})
    return found


def test_one_answer_is_given_to_one_request(speaker: DomainBank) -> None:
    with pytest.raises(ValueError, match="leave num_return_sequences out"):
        speaker.generate("quiet", num_return_sequences=2, do_sample=True)


def test_a_text_is_gone_on_from_behind_what_opens_a_document(speaker: DomainBank) -> None:
    ids, length = speaker.asked("quiet <|endoftext|> lake")
    opening, *rest = ids[0].tolist()
    assert (opening, int(length)) == (Encoder(speaker.tokenizer, 64).opening, len(rest) + 1)
    assert not set(speaker.tokenizer.all_special_ids) & set(rest)
    with pytest.raises(BadBank, match="give it one string"):
        speaker.generate([{"role": "user", "content": "quiet"}])
