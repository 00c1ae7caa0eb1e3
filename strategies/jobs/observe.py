"""Losses of the model while it trains, for what follows them: on ``select`` halves, never on ``judge``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.contract import EvalFile
from strategies.errors import BadPlan
from strategies.inference.encoding import Encoder, Example
from strategies.inference.score import Scorer, windows
from strategies.jobs.dividing import Classes, parts
from strategies.jobs.measure import class_losses
from strategies.settings import Task
from strategies.training.data import Documents, eval_side, messages_of


class SelectLosses:
    """Mean loss on each eval set: a token (of texts, of answers), or a document (of classes that the model knows).

    Calling it measures the model as it is. At most ``documents`` of each set are used, those of the lowest digests, and
    they are encoded once. ``labels`` are the model's classes. With ``classes`` a set's documents of each class are a
    set of their own, named as :func:`strategies.contract.domains.part`. A set with nothing to measure is left out.
    """

    def __init__(
        self,
        files: Sequence[EvalFile],
        task: Task,
        *,
        encoder: Encoder,
        scorer: Scorer,
        labels: Sequence[str] = (),
        documents: int = 200,
        classes: Classes | None = None,
    ) -> None:
        self._scorer = scorer
        self._classes = len(labels) if task == "classification" else 0
        sets = {
            name: _encoded(found.first(documents), task, encoder, labels)
            for file in files
            for name, found in parts(file.name, _select_half(file, task), classes).items()
        }
        self._sets = {name: examples for name, examples in sets.items() if examples}
        if not self._sets:
            raise BadPlan("no eval set has anything to measure on its select half; wait for larger batches")

    def __call__(self) -> dict[str, float]:
        """Loss by name of the eval set."""
        return {name: self._loss(examples) for name, examples in self._sets.items()}

    def _loss(self, examples: Sequence[Example]) -> float:
        if self._classes:
            logits = self._scorer.logits([ids for ids, _ in examples], self._classes)
            return float(np.mean(class_losses(logits, np.array([target for _, (target,) in examples]))))
        sums, counts = self._scorer.losses(examples)
        return float(sums.sum() / counts.sum())


def _select_half(file: EvalFile, task: Task) -> Documents:
    documents = eval_side(file, task)
    return documents.where(np.array([half == "select" for half in documents.column("half")], dtype=np.bool_))


def _encoded(documents: Documents, task: Task, encoder: Encoder, labels: Sequence[str]) -> list[Example]:
    if task == "sft":
        return encoder.dialogues(messages_of(documents.column("messages")))
    texts = documents.column("text")
    if task == "causal-lm":
        return [window for ids in encoder.texts(texts) for window in windows(encoder.opening, ids, encoder.max_length)]
    place = {label: index for index, label in enumerate(labels)}
    known = [
        (text, place[label]) for text, label in zip(texts, documents.column("label"), strict=True) if label in place
    ]
    return [(ids, [at]) for ids, (_, at) in zip(encoder.classified([text for text, _ in known]), known, strict=True)]
