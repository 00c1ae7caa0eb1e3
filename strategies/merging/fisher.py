"""Fisher information of a model's parameters: per example, after training, without any penalty (METHODS 6.1, 7.1).

``F = E_x E_{y~p(y|x)} [(d log p(y|x) / d theta)^2]``, diagonal. Three estimators, and an artifact names its own:

``exact``      classifiers: every label's squared gradient, weighted with ``p(y|x)``
``sampled``    language models: tokens that the model itself draws stand for the expectation over ``y``, one at each
               position, behind the real ones before it. That needs no generation, as one continuation a prompt would,
               and no two draws depend on each other
``empirical``  language models: the gold tokens of each example do, whatever the model thinks of them

Squaring the gradient of a batch's mean instead is biased low by about the batch's size; every example goes by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from strategies.errors import BadState
from strategies.inference.encoding import IGNORED
from strategies.merging.models import Shards, spelled

Estimator = Literal["exact", "sampled", "empirical"]
FILE = "importance.safetensors"
FACTS = "importance.json"


def exact_fisher(model: Any, examples: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Fisher information of a classifier, exact over its labels.

    Args:
        model: its forward pass gives logits (1, labels); left in evaluation mode.
        examples: inputs of one example each, (1, length), on the model's device.

    Returns: float32 tensors by parameter name, of the parameters that require a gradient; in 1 / parameter squared.
    """
    return _mean(model, examples, _labels)


def sampled_fisher(
    model: Any, examples: Iterable[tuple[Mapping[str, Tensor], Tensor]], *, seed: int
) -> dict[str, Tensor]:
    """Fisher information of a language model, from one draw for each token that counts.

    Each one is drawn from the model's own next-token distribution behind the real tokens before it: of a text all its
    tokens, of a dialogue those of its answer. Draws depend on each other in nothing, so that products of two tokens'
    gradients vanish on the average and the expectation is the sum of the tokens' Fisher information.

    Args:
        model: its forward pass gives logits (1, length, vocabulary); left in evaluation mode.
        examples: inputs and targets (1, length) of one example each; where the target is -100 nothing is drawn.
        seed: of all draws; on one kind of device the same seed gives the same draws.

    Returns: float32 tensors by parameter name, as :func:`exact_fisher`.
    """
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    return _mean(model, examples, partial(_drawn_tokens, generator=generator))


def empirical_fisher(model: Any, examples: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> dict[str, Tensor]:
    """Empirical Fisher information of a language model: squared gradients of the gold tokens' log-likelihood.

    Args:
        model: its forward pass gives logits (1, length, vocabulary); left in evaluation mode.
        examples: inputs and targets (1, length) of one example each; targets of -100 do not count.

    Returns: float32 tensors by parameter name, as :func:`exact_fisher`.
    """
    return _mean(model, examples, _tokens)


def _labels(model: Any, inputs: Mapping[str, Tensor]) -> list[tuple[float, Tensor]]:
    likelihoods = model(**inputs).logits.float().log_softmax(-1)
    _check_single(likelihoods)
    return list(zip(likelihoods[0].detach().exp().tolist(), likelihoods[0], strict=True))


def _tokens(model: Any, example: tuple[Mapping[str, Tensor], Tensor]) -> list[tuple[float, Tensor]]:
    inputs, targets = example
    logits = model(**inputs).logits.float()
    _check_single(logits)
    loss = nn.functional.cross_entropy(logits[0], targets[0], ignore_index=IGNORED, reduction="sum")
    return [(1.0, -loss)]


def _drawn_tokens(
    model: Any,
    example: tuple[Mapping[str, Tensor], Tensor],
    generator: torch.Generator,
) -> list[tuple[float, Tensor]]:
    inputs, targets = example
    logits = model(**inputs).logits.float()
    _check_single(logits)
    likelihoods = logits[0][targets[0] != IGNORED].log_softmax(-1)
    drawn = torch.multinomial(likelihoods.detach().exp(), 1, generator=generator)
    return [(1.0, likelihoods.gather(1, drawn).sum())]


def _check_single(logits: Tensor) -> None:
    if len(logits) != 1:
        raise ValueError(f"Fisher information needs one example at a time, not {len(logits)}")


def _mean(model: Any, examples: Iterable[Any], likelihoods: Any) -> dict[str, Tensor]:
    model.eval()
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    total = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in parameters.items()}
    count = 0
    for count, example in enumerate(examples, 1):  # noqa: B007 - how many there were is used below
        terms = likelihoods(model, example)
        for place, (weight, likelihood) in enumerate(terms, 1):
            _add(total, parameters, weight, likelihood, last=place == len(terms))
    if count == 0:
        raise ValueError("Fisher information needs at least one example")
    return {name: one.div_(count) for name, one in total.items()}


def _add(
    total: dict[str, Tensor], parameters: dict[str, nn.Parameter], weight: float, likelihood: Tensor, *, last: bool
) -> None:
    found = torch.autograd.grad(likelihood, list(parameters.values()), retain_graph=not last, allow_unused=True)
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is not None:
            total[name].add_(gradient.detach().float().square(), alpha=weight)


def save_importance(folder: Path, tensors: Mapping[str, Tensor], *, estimator: Estimator, examples: int) -> None:
    """The artifact ``state/importance/<estimator>``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: one.cpu().contiguous() for name, one in tensors.items()}, folder / FILE)
    facts = {"format": 1, "estimator": estimator, "examples": examples}
    (folder / FACTS).write_text(json.dumps(facts))


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A saved Fisher information, read one tensor at a time."""

    estimator: str
    examples: int
    shards: Shards

    def has(self, name: str) -> bool:
        """Whether it knows of a parameter; it does not of what was not trained."""
        return spelled(name, self.shards.names) is not None

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """float32; zeros for what is no trained parameter.

        Raises:
            BadState: it is of another model.
        """
        found = spelled(name, self.shards.names)
        if found is None:
            return torch.zeros(shape)
        if self.shards.shape(found) != shape:
            raise BadState(f"the Fisher information of {found} has another shape than {name}; estimate it again")
        return self.shards.raw(found).float()

    def norm(self) -> float:
        """Euclidean norm over all parameters together."""
        squares = [self.shards.raw(name).double().square().sum() for name in self.shards.names]
        return float(torch.stack(squares).sum().sqrt())


def load_importance(folder: Path) -> Importance:
    """Open what :func:`save_importance` wrote.

    Raises:
        BadState: it cannot be read.
    """
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        return Importance(estimator=facts["estimator"], examples=facts["examples"], shards=Shards(folder, [FILE]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadState(f"the Fisher information at {folder} cannot be read; estimate it again") from error
