"""What may be combined with what: a composition that makes no sense is refused with the reason."""

from __future__ import annotations

from strategies.composition import Composition, InfiniteSettings
from strategies.errors import BadPlan
from strategies.settings import TrainingSettings


def check(composition: Composition, training: TrainingSettings) -> None:
    """Refuse screws that contradict each other, or the training settings."""
    if composition.start == "base":
        _check_base(composition)
    if isinstance(composition.schedule, InfiniteSettings):
        _check_infinite(composition, composition.schedule, training)
    if composition.consolidation.kind == "ema":
        _check_ema(composition)
    if composition.selection.kind == "half" and composition.keep_optimizer:
        raise BadPlan("half draws anew what moves, so every stage needs a new optimizer; remove keep_optimizer")


def _check_base(composition: Composition) -> None:
    if composition.mixing.kind != "everything":
        raise BadPlan("from the base, what came since would be lost; set mixing.kind to everything or start to live")
    if composition.schedule.kind == "infinite":
        raise BadPlan("the infinite schedule goes on from the live version's trunk; set start to live")
    if composition.keep_optimizer:
        raise BadPlan("the base has no optimizer moments; remove keep_optimizer or set start to live")


def _check_ema(composition: Composition) -> None:
    if composition.schedule.kind == "infinite":
        raise BadPlan(
            "the infinite schedule goes on from its trunk's own weights, not an average; choose cosine or keep"
        )
    if composition.keep_optimizer:
        raise BadPlan(
            "the moments belong to the last weights, not to their average; remove keep_optimizer or choose keep"
        )


def _check_infinite(composition: Composition, schedule: InfiniteSettings, training: TrainingSettings) -> None:
    if composition.mixing.kind == "everything":
        raise BadPlan("the infinite schedule's trunk has seen the old rows; set mixing.kind to replay")
    if composition.selection.kind == "half":
        raise BadPlan("the infinite schedule continues its trunk's optimizer, but half needs a new one; choose cosine")
    if composition.keep_optimizer:
        raise BadPlan("the infinite schedule always continues its trunk's optimizer; remove keep_optimizer")
    if training.min_learning_rate_ratio == 0:
        raise BadPlan("the infinite schedule anneals exponentially and cannot reach 0; raise min_learning_rate_ratio")
    if schedule.constant_ratio < training.min_learning_rate_ratio:
        raise BadPlan("schedule.constant_ratio is below min_learning_rate_ratio; the anneal would raise the rate")
