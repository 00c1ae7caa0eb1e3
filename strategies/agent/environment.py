"""A small language model to try mixtures on: trained step by step from one shared start (METHODS 4.1, Environment)."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from strategies import schedule
from strategies.agent.rollout import Mixture
from strategies.agent.rows import Ids, RowDrawer, compact, frequent, similarities, token_counts, windows
from strategies.agent.trajectories import Provenance, TrajectoryDomain, TrajectoryHeader
from strategies.libraries import library_versions
from strategies.parts import CosineSchedule
from strategies.settings import Json
from strategies.settings.agent import ProxySettings
from strategies.training.checkpoint import copied
from strategies.training.decay import decay_groups

EVAL_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class DomainTokens:
    """One domain's token ids, each one long row."""

    name: str
    new: bool
    """Whether it is what the training is for."""
    train: Ids
    validation: Ids


class ProxyEnvironment:
    """A tiny Llama that every run re-warms from the same weights, under the same schedule of rates.

    ``name`` tells environments apart whose losses must not be compared. ``start`` is another environment's ``initial``
    on the same data and settings; without it the shared start is trained here, on the old domains by prior. The model
    and what it reads are on ``device``, ``initial`` is in main memory.
    """

    def __init__(
        self,
        name: str,
        data: Sequence[DomainTokens],
        settings: ProxySettings,
        *,
        device: torch.device | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name, self.settings, self._data = name, settings, data
        self.device = device or torch.device("cpu")
        kept = frequent([one.train for one in data], settings.vocabulary)
        trained = [compact(one.train, kept) for one in data]
        self.domains = _domains(data, settings.vocabulary)
        self._rows = [windows(ids, settings.length, one.name) for ids, one in zip(trained, data, strict=True)]
        held = max(1, settings.eval_tokens // settings.length)
        self._held = [
            windows(compact(one.validation, kept), settings.length, one.name)[:held].to(self.device) for one in data
        ]
        self._hashes = {one.name: _sha256(one.train, one.validation) for one in data}
        self._model = _model(settings).to(self.device)
        self.trained_tokens, self.trained_seconds = 0, 0.0
        self.initial = dict(start) if start is not None else self._pretrain()
        self._start_sha256 = hashlib.sha256(save(self.initial)).hexdigest()

    def under(self, settings: ProxySettings) -> ProxyEnvironment:
        """The same data and shared start under other lengths."""
        return ProxyEnvironment(self.name, self._data, settings, device=self.device, start=self.initial)

    @property
    def tokens(self) -> dict[str, int]:
        """Training tokens of every domain."""
        return {domain.name: rows.numel() for domain, rows in zip(self.domains, self._rows, strict=True)}

    @property
    def tokens_per_s(self) -> float:
        """Training speed so far, evaluations not counted."""
        return self.trained_tokens / self.trained_seconds if self.trained_seconds else 0.0

    def header(self, seed: int) -> TrajectoryHeader:
        """What a trajectory under ``seed`` says before its first step."""
        provenance = Provenance(
            seeds={"data": seed, "start": self.settings.seed},
            settings=self.settings.model_dump(mode="json"),
            model={"config": _plain(self._model.config), "start_sha256": self._start_sha256},
            data=self._hashes,
            versions=library_versions(),
        )
        return TrajectoryHeader(
            environment=self.name, domains=self.domains, total=self.settings.steps, provenance=provenance
        )

    def reset(self, seed: int) -> tuple[float, ...]:
        """Back to the shared start; returns the losses of all domains."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(self.initial[name])
        self._begin(str(seed), self.settings.steps)
        return self.evaluate()

    def step(self, mixture: Mixture) -> tuple[tuple[float, ...], int]:
        """One re-weighting step of ``step_tokens`` on ``mixture``; returns the losses after it and the tokens."""
        tokens = self._train(mixture)
        return self.evaluate(), tokens

    @torch.no_grad()
    def evaluate(self) -> tuple[float, ...]:
        """Mean loss a token of every domain's held rows, in nats."""
        self._model.eval()
        sizes = [len(rows) for rows in self._held]
        losses = torch.cat([self._losses(rows).mean(-1) for rows in torch.split(torch.cat(self._held), EVAL_ROWS)])
        return tuple(part.mean().item() for part in torch.split(losses, sizes))

    def _begin(self, order: str, steps: int) -> None:
        self._drawer = RowDrawer([len(rows) for rows in self._rows], order)
        groups = decay_groups(self._model.parameters(), self.settings.weight_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.95))
        self._schedule = _schedule(steps * math.ceil(self._step_rows / self.settings.batch), self.settings)
        self._updates = 0

    @property
    def _step_rows(self) -> int:
        return self.settings.step_tokens // self.settings.length

    def _train(self, mixture: Mixture) -> int:
        began = time.perf_counter()
        drawn = self._drawer.draw(mixture, self._step_rows)
        rows = torch.stack([self._rows[domain][row] for domain, row in drawn]).to(self.device)
        self._model.train()
        for batch in torch.split(rows, self.settings.batch):
            self._update(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.trained_tokens += rows.numel()
        self.trained_seconds += time.perf_counter() - began
        return rows.numel()

    def _update(self, batch: Tensor) -> None:
        self._updates += 1
        for group in self._optimizer.param_groups:
            group["lr"] = schedule.rate(self._schedule, self._updates)
        self._optimizer.zero_grad(set_to_none=True)
        self._losses(batch).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()

    def _losses(self, rows: Tensor) -> Tensor:
        """Loss of every token but the first, [rows, length - 1]."""
        logits = self._model(input_ids=rows, use_cache=False).logits[:, :-1]
        return functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")

    def _pretrain(self) -> dict[str, Tensor]:
        prior = [0.0 if domain.new else domain.prior for domain in self.domains]
        mixture = prior if sum(prior) > 0 else [domain.prior for domain in self.domains]
        self._begin(f"start {self.settings.seed}", max(1, self.settings.initial_steps))
        for _ in range(self.settings.initial_steps):
            self._train([weight / sum(mixture) for weight in mixture])
        return copied(dict(self._model.named_parameters()))


def _domains(data: Sequence[DomainTokens], vocabulary: int) -> tuple[TrajectoryDomain, ...]:
    total = sum(len(one.train) for one in data)
    near = similarities([token_counts(one.train) for one in data], [one.new for one in data], vocabulary)
    return tuple(
        TrajectoryDomain(name=one.name, new=one.new, prior=len(one.train) / total, similarity=cosine)
        for one, cosine in zip(data, near, strict=True)
    )


def _model(settings: ProxySettings) -> Any:
    config = LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 2,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return LlamaForCausalLM(config)


def _schedule(steps: int, settings: ProxySettings) -> CosineSchedule:
    peak = settings.learning_rate
    return CosineSchedule(
        steps=steps,
        warmup=math.ceil(settings.warmup * steps),
        lr=peak,
        min_lr=peak * settings.min_learning_rate_ratio,
    )


def _plain(config: Any) -> Json:
    return dict(json.loads(config.to_json_string(use_diff=True)))


def _sha256(*arrays: Ids) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(len(array).to_bytes(8, "little") + array.astype("<i8").tobytes())
    return digest.hexdigest()
