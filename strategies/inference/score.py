"""Losses and classes of many examples, batched by length; an example's result does not depend on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from strategies.inference.bank.domains import DomainBank
from strategies.inference.bank.padding import padded
from strategies.inference.encoding import IGNORED, Example
from strategies.inference.precision import Precision

MAX_LOGITS = 1 << 28
"""Numbers in one batch's logits: rows are dealt out so that long ones do not fill the memory."""
Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model, how to run it, and how many rows at a time. ``tick`` hears the rows done and may raise."""

    model: Any
    precision: Precision
    pad: int
    rows: int
    tick: Tick

    def losses(self, examples: Sequence[Example]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Summed loss in nats, and number of targets, of each example."""
        sums, counts = np.zeros(len(examples)), np.zeros(len(examples), np.int64)

        def forward(places: Sequence[int]) -> None:
            ids, _ = padded([examples[place][0] for place in places], self.pad)
            targets = padded([examples[place][1] for place in places], IGNORED)[0].to(self.precision.device)
            # A bank routes each request by its prompt, which only the targets tell from the answer.
            routed = {"prompts": self.model.prompts(targets)} if isinstance(self.model, DomainBank) else {}
            logits = self.model(input_ids=ids.to(self.precision.device), use_cache=False, **routed).logits
            found = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
            ).view_as(targets)
            sums[places] = found.double().sum(1).cpu().numpy()
            counts[places] = (targets != IGNORED).sum(1).cpu().numpy()

        self._each([len(ids) for ids, _ in examples], int(self.model.config.get_text_config().vocab_size), forward)
        return sums, counts

    def logits(self, texts: Sequence[list[int]], classes: int) -> NDArray[np.float64]:
        """Logits of each text under a classifier, (texts, classes)."""
        out = np.zeros((len(texts), classes))

        def forward(places: Sequence[int]) -> None:
            ids, seen = (part.to(self.precision.device) for part in padded([texts[at] for at in places], self.pad))
            out[places] = self.model(input_ids=ids, attention_mask=seen).logits.double().cpu().numpy()

        self._each(list(map(len, texts)), 1, forward)
        return out

    def mean_loss(self, examples: Sequence[Example], *, classes: int = 0) -> float:
        """Mean loss of all targets: of tokens, or of the texts of a classifier that has ``classes``."""
        if classes:
            logits = self.logits([ids for ids, _ in examples], classes)
            return float(class_losses(logits, np.array([target for _, (target,) in examples])).mean())
        sums, counts = self.losses(examples)
        return float(sums.sum() / counts.sum())

    def _each(self, lengths: list[int], width: int, forward: Callable[[Sequence[int]], None]) -> None:
        """Call ``forward`` with the places of like lengths together, the longest first."""
        order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
        rows, at = self.rows, 0
        self.model.eval()
        while at < len(order):
            fitting = max(1, min(rows, MAX_LOGITS // (width * max(1, lengths[order[at]]))))
            places = order[at : at + fitting]
            try:
                with torch.inference_mode(), self.precision.autocast():
                    forward(places)
            except torch.OutOfMemoryError:
                if fitting == 1:
                    raise
                rows = fitting // 2
                continue
            at += len(places)
            self.tick(len(places))


def class_losses(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cross-entropy of each row in nats; NaN where the label is unknown (-100)."""
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    chosen = logits[np.arange(len(logits)), np.maximum(labels, 0)]
    return np.where(labels == IGNORED, np.nan, total - chosen)
