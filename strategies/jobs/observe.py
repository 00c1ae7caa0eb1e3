"""Losses of the model while it trains, for what follows them: on ``select`` halves, never on ``judge``."""

from __future__ import annotations

from collections.abc import Sequence

from strategies.contract import EvalFile
from strategies.errors import BadPlan
from strategies.inference.encoding import Encoder, with_targets
from strategies.inference.score import Scorer
from strategies.jobs.dividing import Classes, parts
from strategies.settings import Task
from strategies.training.data import eval_side


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
        self._classes = len(labels)
        sets = {
            name: with_targets(encoder.examples(found.first(documents), task, labels))
            for file in files
            for name, found in parts(file.name, eval_side(file, task, half="select"), classes).items()
        }
        self._sets = {name: examples for name, examples in sets.items() if examples}
        if not self._sets:
            raise BadPlan("no eval set has anything to measure on its select half; wait for larger batches")

    def __call__(self) -> dict[str, float]:
        """Loss by name of the eval set."""
        return {name: self._scorer.mean_loss(one, classes=self._classes) for name, one in self._sets.items()}
