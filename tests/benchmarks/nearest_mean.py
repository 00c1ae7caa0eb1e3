"""Nearest class mean on a frozen encoder: the baseline of class-incremental learning that trains nothing.

A text's feature is the standardised mean of its last hidden states (METHODS 3.6); it gets the class whose mean has the
highest cosine. Means of separate batches need nothing of each other, so nothing is forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from strategies.contract import EvalFile, ModelFiles
from strategies.inference.bank.adapted import feature
from strategies.inference.encoding import Encoder
from strategies.inference.load import load_tokenizer
from strategies.inference.statistics import Moments
from strategies.settings import TrainingSettings
from strategies.training.data import Documents, eval_side, training_side
from tests.benchmarks.batches import Batch
from tests.benchmarks.line import Made


@dataclass(frozen=True, kw_only=True)
class Share:
    """Accuracy on a set."""

    value: float
    metric: str = "accuracy"


class NearestMean:
    """Stands where a :class:`~tests.benchmarks.line.Line` does."""

    def __init__(self, model: ModelFiles, training: TrainingSettings) -> None:
        tokenizer = load_tokenizer(model)
        self._encoder = Encoder(tokenizer, training.max_length)
        self._pad = tokenizer.pad_token_id
        self._size = training.per_device_eval_batch_size
        self._model = transformers.AutoModel.from_pretrained(model.path, local_files_only=True).eval()
        self._moments: dict[str, Moments] = {}

    def retrain(self, batches: Sequence[Batch]) -> Made:
        """Add the batches' texts to their classes' means."""
        began, tokens = time.process_time(), 0
        for documents in (training_side(batch.source, "classification") for batch in batches):
            labels = iter(documents.column("label"))
            for count, features in self._features(documents):
                tokens += count
                for row, label in zip(features, labels, strict=False):
                    self._moments.setdefault(label, Moments(len(row), diagonal=True)).add(row[None])
        spent = {"train": round(time.process_time() - began, 3)}
        return Made(strategy="nearest mean", reason="Adds class means.", values={}, tokens=tokens, steps=0, cpu_s=spent)

    def scores(self, sets: Sequence[EvalFile]) -> Mapping[str, Share]:
        """Accuracy of each set over all classes so far."""
        return {one.name: self._share(one) for one in sets}

    def close(self) -> None:
        """Nothing is on disk."""

    def _share(self, file: EvalFile) -> Share:
        documents = eval_side(file, "classification")
        names = sorted(self._moments)
        means = F.normalize(torch.stack([self._moments[name].mean for name in names]), dim=1)
        found = torch.cat([features.double() @ means.T for _, features in self._features(documents)]).argmax(1)
        right = [names[at] == label for at, label in zip(found.tolist(), documents.column("label"), strict=True)]
        return Share(value=sum(right) / len(right))

    def _features(self, documents: Documents) -> Iterator[tuple[int, Tensor]]:
        """Tokens and features (rows, d) of texts, a batch at a time, in their order."""
        found = documents.column("text")
        for at in range(0, len(found), self._size):
            texts = found[at : at + self._size]
            ids = [torch.tensor(one) for one in self._encoder.classified(texts)]
            inputs = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self._pad)
            lengths = torch.tensor([len(one) for one in ids])
            mask = (torch.arange(inputs.shape[1]) < lengths[:, None]).long()
            with torch.inference_mode():
                hidden = self._model(input_ids=inputs, attention_mask=mask).last_hidden_state
            yield int(mask.sum()), feature(hidden, mask, "mean")
