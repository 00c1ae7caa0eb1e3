"""Exact matches: the share of answers that greedy decoding gives word for word, from one forward pass a row.

Greedy decoding gives exactly the answer if and only if every token of it, its end included, is the likeliest one after
the prompt and the answer's tokens before it; so nothing has to be generated. An answer that is longer than the model
reads has no end to be right about: it counts as wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from strategies.contract import EvalFile, ModelFiles
from strategies.inference.bank import DomainBank
from strategies.inference.encoding import IGNORED, Encoder, Example, messages_of
from strategies.inference.load import load
from strategies.settings import TrainingSettings
from strategies.training.data import eval_side


def exact_matches(files: ModelFiles, file: EvalFile, training: TrainingSettings) -> float:
    """Share of an sft set's last messages that the model answers exactly, on the CPU."""
    loaded = load(files, "sft", device=torch.device("cpu"))
    dialogues = messages_of(eval_side(file, "sft").column("messages"))
    cut, whole = (
        Encoder(loaded.tokenizer, length).dialogues(dialogues) for length in (training.max_length, sys.maxsize)
    )
    examples = [one for one, all_of_it in zip(cut, whole, strict=True) if _answer(one) == _answer(all_of_it)]
    size = training.per_device_eval_batch_size
    ordered = sorted(examples, key=lambda one: len(one[0]))
    found = [_matches(loaded.model, ordered[at : at + size]) for at in range(0, len(ordered), size)]
    return sum(found) / len(dialogues)


def _answer(example: Example) -> list[int]:
    return [target for target in example[1] if target != IGNORED]


@torch.inference_mode()
def _matches(model: Any, examples: list[Example]) -> int:
    """How many rows have the likeliest token at every place that counts."""
    width = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in examples])
    targets = torch.tensor([[*wanted, *[IGNORED] * (width - len(wanted))] for _, wanted in examples])
    # A bank routes each request by its prompt, which only the targets tell from the answer.
    routed = {"prompts": model.prompts(targets)} if isinstance(model, DomainBank) else {}
    likeliest = model(input_ids=ids, use_cache=False, **routed).logits.argmax(-1)
    return int(((likeliest == targets) | (targets == IGNORED)).all(1).sum())
