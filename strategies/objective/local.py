"""A task's own classes, with features kept apart (METHODS 3.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from strategies.settings.objective import LocalObjective
from strategies.training.adapters import earlier_means
from strategies.training.batches import Batch
from strategies.training.materials import Materials
from strategies.training.objective import Objective
from strategies.training.seams import Run


class Local(Objective):
    """Cross-entropy over ``own`` classes (logits of others are -inf) + ``orthogonality`` times :func:`apart`.

    ``means`` (n, d) are the stored means of earlier classes. Logits and features come from a classifier with
    ``features`` and ``classifier`` (an :class:`~strategies.inference.bank.adapted.AdaptedClassifier`).
    """

    tasks = ("classification",)

    def __init__(self, settings: LocalObjective, *, own: Collection[int], means: Tensor | None = None) -> None:
        self.settings = settings
        self.own = sorted(own)
        self.means = means
        self._whole: Tensor | None = None
        self._place, self._weight = 0, 0

    @classmethod
    def of(cls, settings: LocalObjective, materials: Materials) -> Local:
        """With the classes that the job's rows have, and the bank's means of all others."""
        labels = [rows.labels for rows in materials.rows.values() if rows.labels is not None]
        own = {int(place) for found in labels for place in found}
        bank = materials.adaptation.bank if materials.adaptation else None
        return cls(settings, own=own, means=earlier_means(bank, materials.labels, own))

    def begin(self, run: Run) -> None:
        self.means = None if self.means is None else self.means.to(run.precision.device, torch.float32)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        features = run.model.features(batch.inputs)
        logits = run.model.classifier(features).float()
        blocked = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        blocked[self.own] = False
        own = F.cross_entropy(logits.masked_fill(blocked, -torch.inf), batch.targets, reduction="sum")
        if not self.settings.orthogonality:
            return own
        return own + self.settings.orthogonality * self._term(features.float(), batch.weight)

    def gradients(self, run: Run, micro: Sequence[Batch]) -> Tensor:
        """As of the whole step, however many rows go through at once: each piece is kept apart from all others."""
        if len(micro) == 1 or not self.settings.orthogonality:
            return super().gradients(run, micro)
        with torch.no_grad(), run.precision.autocast():
            found = [run.model.features(batch.to(run.precision.device).inputs).float() for batch in micro]
        self._whole, self._place, self._weight = torch.cat(found), 0, sum(batch.weight for batch in micro)
        try:
            return super().gradients(run, micro)
        finally:
            self._whole = None

    def _term(self, rows: Tensor, weight: int) -> Tensor:
        """The term times the weight that counts of this piece."""
        if self._whole is None:
            return weight * self._apart(rows)
        whole = self._whole.clone()
        whole[self._place : self._place + len(rows)] = rows
        self._place += len(rows)
        found = self._apart(whole)
        # Only this piece's rows carry a gradient, all of it; the value is shared out among the pieces.
        return weight * found.detach() + self._weight * (found - found.detach())

    def _apart(self, rows: Tensor) -> Tensor:
        together = rows if self.means is None else torch.cat([self.means, rows])
        return apart(together, self.settings.temperature, normalise=self.settings.normalise)


def apart(rows: Tensor, temperature: float, *, normalise: bool) -> Tensor:
    """How much rows (n, d) look alike: cross-entropy of their Gram matrix over ``temperature``, row i to be itself.

    Source: MOS (Sun et al. 2025), METHODS 3.2. ``normalise``: rows at length 1; as published they are not.
    """
    if normalise:
        rows = F.normalize(rows, dim=1)
    return F.cross_entropy(rows @ rows.T / temperature, torch.arange(len(rows), device=rows.device))
