"""A bank of language-model adapters: each request is routed once, by its prompt (METHODS 3.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from .adapted import BASE, Answer, generated, live_digest, mean_over, run
from .files import Form, Manifest
from .rendering import PROMPT, Messages, Renderer, routing

OPENING = 64
"""Tokens at the beginning of a text without a prompt that stand for one."""
LENGTHS = (4, 8, 16, 32, OPENING)
"""Tokens of an opening from which on a limit of its own holds: the less a text says, the further it may seem."""
NEVER = -1e4


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Prompts as the base model sees them: features (rows, D) in float64, mean loss a token (rows,)."""

    features: Tensor
    losses: Tensor


@dataclass(frozen=True, kw_only=True)
class Routed:
    """For each row its adapter's place (-1: the base), and the posterior (rows, domains)."""

    adapters: tuple[int, ...]
    posterior: Tensor


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Right-padded token ids (rows, length), and the mask of what is prompt."""

    ids: Tensor
    mask: Tensor

    @staticmethod
    def cut(ids: Tensor, lengths: Tensor, *, most: int = PROMPT) -> Prompts:
        """The first ``lengths`` tokens of each row; of more than ``most`` the last ``most``."""
        ends = lengths.to(ids.device).clamp(1, ids.shape[1])[:, None]
        starts = (ends - most).clamp_min(0)
        places = torch.arange(int((ends - starts).max()), device=ids.device)
        return Prompts(ids=ids.gather(1, (starts + places).clamp_max(ids.shape[1] - 1)), mask=places < ends - starts)

    def take(self, rows: Sequence[int]) -> Prompts:
        return Prompts(ids=self.ids[list(rows)], mask=self.mask[list(rows)])


def look(model: Any, prompts: Prompts, layer: int) -> Looked:
    """Router features under the base: hidden states of ``layer`` and the last, averaged over the prompt, each at
    length 1; and the base's loss on the prompt."""
    found = run(
        model, {"input_ids": prompts.ids, "output_hidden_states": True, "use_cache": False}, [BASE] * len(prompts.ids)
    )
    parts = [mean_over(found.hidden_states[at], prompts.mask).double() for at in (layer, -1)]
    features = torch.cat([F.normalize(part, dim=1) for part in parts], dim=1) / len(parts) ** 0.5
    return Looked(features=features, losses=_losses(found.logits, prompts))


def prompt_losses(model: Any, prompts: Prompts, adapters: Sequence[str]) -> Tensor:
    """Mean loss a token of each prompt under its adapter, in nats; 0 for a prompt of one token."""
    found = run(model, {"input_ids": prompts.ids, "use_cache": False}, adapters)
    return _losses(found.logits, prompts)


def _losses(logits: Tensor, prompts: Prompts) -> Tensor:
    counted = prompts.mask[:, 1:]
    targets = prompts.ids[:, 1:].masked_fill(~counted, -100)
    sums = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, reduction="none").double().sum(1)
    return sums / counted.sum(1).clamp_min(1)


def prompt_lengths(targets: Tensor, *, prompted: bool = False) -> Tensor:
    """How many first tokens of each row are its prompt: those before the first target that counts.

    A text that counts from its first token on has no prompt; its opening stands for one. Where every row is known to
    have a prompt (``prompted``), such a row's is one token, the one that its answer follows.
    """
    counts = targets != -100
    first = torch.where(counts.any(1), counts.int().argmax(1), torch.full_like(targets[:, 0], OPENING))
    ends = counts.shape[1] - counts.flip(1).int().argmax(1)
    return first + 1 if prompted else torch.where(first > 0, first + 1, ends.clamp_max(OPENING))


def read_of(form: Form, max_length: int) -> int:
    """Most tokens of a prompt that are read; a text's opening is no longer than that."""
    return PROMPT if form == "text" else routing(max_length)


class DomainBank(nn.Module):
    """A causal language model whose requests each run under one adapter, or under the base if they fit no domain.

    Routing (METHODS 3.7): the prior compares the prompt's features under the base with every domain's; refinement
    asks the best ``rounds + 1`` adapters by the prior how much better than the base they expect the prompt, in standard
    deviations of what they gain on their own domain; the posterior is the mean of both. With one adapter there is
    nothing to choose.
    """

    means: Tensor
    factor: Tensor
    gains: Tensor
    distances: Tensor

    def __init__(self, model: Any, vectors: dict[str, Tensor], *, manifest: Manifest, folder: Path) -> None:
        super().__init__()
        self.model = model
        self.manifest = manifest
        self.folder = folder
        self.labels: tuple[str, ...] = ()
        for name in ("means", "factor", "gains", "distances"):
            self.register_buffer(name, vectors[name].double(), persistent=False)
        self.tokenizer: Any = None

    @property
    def config(self) -> Any:
        """The base's configuration, as every model of transformers has one."""
        return self.model.config

    def forward(self, input_ids: Tensor, prompts: Tensor | None = None, use_cache: bool = False) -> Answer:
        """Logits (rows, length, vocabulary), each row under the adapter that its prompt is routed to.

        ``prompts`` has the number of prompt tokens of each row; without it the rows' openings are their prompts.
        """
        lengths = torch.full((len(input_ids),), OPENING) if prompts is None else prompts
        chosen = self.route(input_ids, lengths).adapters
        names = [self.name(place) for place in chosen]
        logits = run(self.model, {"input_ids": input_ids, "use_cache": use_cache}, names).logits
        return Answer(logits=logits, adapters=chosen)

    def name(self, place: int) -> str:
        """Peft's name of an adapter by its place."""
        return BASE if place < 0 else self.manifest.names[place]

    def route(self, input_ids: Tensor, lengths: Tensor) -> Routed:
        """Where the prompts (the first ``lengths`` tokens of each row) go."""
        count, domains = len(input_ids), len(self.manifest.adapters)
        if domains == 1:
            sure = torch.ones(count, 1, dtype=torch.float64)
            return Routed(adapters=(0,) * count, posterior=sure)
        prompts = Prompts.cut(input_ids, lengths, most=read_of(self.manifest.form, self.manifest.max_length))
        with torch.inference_mode():
            looked = look(self.model, prompts, self.manifest.layer)
            prior = self.prior(looked.features)
            scores = self._refined(prompts, looked, prior)
            posterior = (scores.softmax(1) + prior.softmax(1)) / 2
            best = posterior.max(1)
            away = self.distance(looked.features, prompts.mask.sum(1)).gather(1, best.indices[:, None])[:, 0]
            inside = (best.values >= self.manifest.threshold) & (away <= 1)
        chosen = torch.where(inside, best.indices, -1).tolist()
        return Routed(adapters=tuple(chosen), posterior=posterior)

    def prior(self, features: Tensor) -> Tensor:
        """Unnormalised log prior (rows, domains) of features (rows, D)."""
        if self.manifest.prior == "gaussian":
            return -0.5 * self._squares(features)
        temperature = self.manifest.temperature or len(self.means)
        return temperature * (F.normalize(features, dim=1) @ F.normalize(self.means, dim=1).T)

    def distance(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Mahalanobis distance (rows, domains) of prompts of ``lengths`` (rows,) tokens over the largest that the
        domain's own prompts, cut to about as many, were expected to have."""
        known = torch.tensor(self.manifest.lengths, device=lengths.device)
        reached = (lengths[:, None] >= known).sum(1).clamp_min(1) - 1
        return self._squares(features).sqrt() / self.distances.T[reached]

    def _squares(self, features: Tensor) -> Tensor:
        return whitened(features[:, None] - self.means, self.factor).square().sum(-1)

    def _refined(self, prompts: Prompts, looked: Looked, prior: Tensor) -> Tensor:
        """Scores (rows, domains) of the best domains by the prior, as many as may be asked (others :data:`NEVER`).

        All of them are asked, each once: the right domain may be last of them by the prior, behind one that is worse
        than the first.
        """
        asked = min(self.manifest.rounds + 1, len(self.means))
        order = prior.argsort(dim=1, descending=True, stable=True)[:, :asked]
        scores = torch.full_like(prior, NEVER)
        for domains in order.T.tolist():
            self._ask(prompts, looked, scores, list(enumerate(domains)))
        return scores

    def _ask(self, prompts: Prompts, looked: Looked, scores: Tensor, pairs: list[tuple[int, int]]) -> None:
        rows, domains = [row for row, _ in pairs], [domain for _, domain in pairs]
        losses = prompt_losses(self.model, prompts.take(rows), [self.manifest.names[domain] for domain in domains])
        gains = self.gains[domains]
        scores[rows, domains] = (looked.losses[rows] - losses - gains[:, 0]) / gains[:, 1]

    def changed(self) -> tuple[str, ...]:
        """Adapters that are no longer what was stored; there are none unless something wrote to them."""
        entries = self.manifest.adapters
        return tuple(one.name for one in entries if live_digest(self.model, one.name, self.folder) != one.sha256)

    def prompts(self, targets: Tensor) -> Tensor:
        """How many first tokens of each row route it, from the row's targets (rows, length)."""
        return prompt_lengths(targets, prompted=self.manifest.form != "text")

    def asked(self, prompt: str | Messages) -> tuple[Tensor, Tensor]:
        """Token ids (1, length) of a request, and how many of them (1,) route it, as of a row that is scored."""
        ids = Renderer(self.tokenizer).request(prompt, self.manifest.form)
        length = min(len(ids), OPENING) if self.manifest.form == "text" else len(ids)
        return torch.tensor([ids], device=self.means.device), torch.tensor([length])

    @torch.inference_mode()
    def generate(self, prompt: str | Messages, **options: Any) -> str:
        """The answer to one prompt, routed once: the adapter stays for the whole answer.

        Args:
            prompt: a string, or a list of messages (``role``, ``content``) for a bank of dialogues, to which a string
                is one user's message; written as training and evaluation wrote it.
            options: of transformers' ``generate``.

        Raises:
            ValueError: more than one answer is asked for (``num_return_sequences``).
        """
        if options.get("num_return_sequences", 1) != 1:
            raise ValueError("generate gives one answer; ask again for another, and leave num_return_sequences out")
        ids, length = self.asked(prompt)
        (place,) = self.route(ids, length).adapters
        options = {"attention_mask": torch.ones_like(ids), "pad_token_id": self.tokenizer.pad_token_id, **options}
        found = generated(self.model, self.name(place), input_ids=ids, **options)
        return str(self.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))


def whitened(differences: Tensor, factor: Tensor) -> Tensor:
    """Differences (…, D) in units of a covariance given by its Cholesky factor (D, D) or standard deviations (D,)."""
    if factor.ndim == 1:
        return differences / factor
    flat = differences.reshape(-1, differences.shape[-1])
    found: Tensor = torch.linalg.solve_triangular(factor, flat.T, upper=False).T.reshape(differences.shape)
    return found
