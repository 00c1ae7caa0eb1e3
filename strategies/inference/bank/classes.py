"""A bank that answers with classes: retrieval by the head, ensemble with the first adapter's class means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from .adapted import AdaptedClassifier, Answer, live_digest
from .files import Manifest
from .padding import padded
from .rendering import Renderer
from .retrieval import Retrieved, retrieve

FLOOR = -1e4
"""Logit of a class that no task had: its probability is 0, and a loss on it stays finite."""
AT_ONCE = 32
"""Texts that are classified in one pass."""


class ClassBank(AdaptedClassifier):
    """Texts to classes over all tasks; ``forward`` gives log probabilities of the ensemble (METHODS 3.3).

    With one adapter there is nothing to choose, and the answer is that adapter's logits as they are.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(self, body: Any, head: nn.Linear, prototypes: Tensor, *, manifest: Manifest, folder: Path) -> None:
        super().__init__(body, head, pooling=manifest.pooling)
        self.manifest = manifest
        self.folder = folder
        self.labels = manifest.labels
        self.register_buffer("prototypes", F.normalize(prototypes.float(), dim=1), persistent=False)
        self.register_buffer("seen", torch.tensor(manifest.owners) >= 0, persistent=False)
        self.tokenizer: Any = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Answer:
        """Routed logits (rows, classes) in float32; argmax is the class, softmax the ensemble's probability."""
        asked = _Asked(self, {"input_ids": input_ids, "attention_mask": attention_mask})
        found = asked.route()
        return Answer(logits=asked.combine(found), adapters=found.adapters)

    def route(self, input_ids: Tensor, attention_mask: Tensor) -> Retrieved:
        """Which adapter each row goes to, and after how many rounds."""
        return _Asked(self, {"input_ids": input_ids, "attention_mask": attention_mask}).route()

    def changed(self) -> tuple[str, ...]:
        """Adapters that are no longer what was stored; there are none unless something wrote to them."""
        entries = self.manifest.adapters
        return tuple(one.name for one in entries if live_digest(self.body, one.name, self.folder) != one.sha256)

    @torch.inference_mode()
    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The class of each text and its probability; one text alone is refused, as its letters are no texts."""
        if isinstance(texts, str):
            raise TypeError("classify takes a list of texts; put the one text into a list")
        found: list[tuple[str, float]] = []
        for start in range(0, len(texts), AT_ONCE):
            rows = Renderer(self.tokenizer).read(texts[start : start + AT_ONCE], self.manifest.max_length)
            ids, mask = (part.to(self.classifier.weight.device) for part in padded(rows, self.tokenizer.pad_token_id))
            best = self(input_ids=ids, attention_mask=mask).logits.softmax(1).max(1)
            sure = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found += [(self.labels[at], probability) for at, probability in sure]
        return found


class _Asked:
    """One batch on its way: features by row and adapter, each made once."""

    def __init__(self, bank: ClassBank, inputs: dict[str, Tensor]) -> None:
        self.bank = bank
        self.inputs = inputs
        self.made: dict[tuple[int, int], Tensor] = {}

    def route(self) -> Retrieved:
        count = len(self.inputs["input_ids"])
        if len(self.bank.manifest.adapters) == 1:
            return Retrieved(adapters=(0,) * count, rounds=(0,) * count)
        owners = self.bank.manifest.owners
        first = [owners[place] for place in self.prior().argmax(1).tolist()]
        return retrieve(first, self.ask, rounds=self.bank.manifest.rounds)

    def ask(self, rows: Sequence[int], adapters: Sequence[int]) -> list[tuple[int, float]]:
        best = self.logits(rows, adapters).softmax(1).max(1)
        owners = [self.bank.manifest.owners[place] for place in best.indices.tolist()]
        return list(zip(owners, best.values.tolist(), strict=True))

    def combine(self, found: Retrieved) -> Tensor:
        refined = self.logits(range(len(found.adapters)), found.adapters)
        tasks = len(self.bank.manifest.adapters)
        if tasks == 1:
            return refined
        total = refined.softmax(1) + (tasks * self.prior()).softmax(1)
        return (total / 2).log().clamp_min(FLOOR)

    def prior(self) -> Tensor:
        """Cosine of each row's feature under the first adapter with every class mean; never a class without one."""
        count = len(self.inputs["input_ids"])
        features = self.features(range(count), [0] * count)
        with torch.autocast(features.device.type, enabled=False):
            return self._masked(F.normalize(features, dim=1) @ self.bank.prototypes.T)

    def logits(self, rows: Sequence[int], adapters: Sequence[int]) -> Tensor:
        features = self.features(rows, adapters)
        with torch.autocast(features.device.type, enabled=False):
            return self._masked(self.bank.classifier(features).float())

    def _masked(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~self.bank.seen, FLOOR)

    def features(self, rows: Sequence[int], adapters: Sequence[int]) -> Tensor:
        """Features of rows under their adapters; what is not there yet is made in one forward pass."""
        wanted = list(zip(rows, adapters, strict=True))
        missing = [pair for pair in wanted if pair not in self.made]
        if missing:
            places = [row for row, _ in missing]
            inputs = {name: tensor[places] for name, tensor in self.inputs.items()}
            names = [self.bank.manifest.names[adapter] for _, adapter in missing]
            self.made.update(zip(missing, self.bank.features(inputs, names), strict=True))
        return torch.stack([self.made[pair] for pair in wanted])
