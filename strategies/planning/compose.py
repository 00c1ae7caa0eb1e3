"""What may be combined with what: a composition that makes no sense is refused with the reason."""

from __future__ import annotations

from strategies.composition import Composition, InfiniteSettings
from strategies.errors import BadPlan
from strategies.mixing.regmix import LEAST_RUNS
from strategies.mixing.settings import WeightedSettings
from strategies.settings import TrainingSettings


def check(composition: Composition, training: TrainingSettings) -> None:
    """Refuse screws that contradict each other, or the training settings."""
    if composition.start == "base":
        _check_base(composition)
    if isinstance(composition.schedule, InfiniteSettings):
        _check_infinite(composition, composition.schedule, training)
    if composition.selection.kind == "half" and composition.keep_optimizer:
        raise BadPlan("half draws anew what moves, so every stage needs a new optimizer; remove keep_optimizer")
    if isinstance(composition.mixing, WeightedSettings):
        _check_weighted(composition.mixing)


def _check_weighted(mixing: WeightedSettings) -> None:
    reweight, given = mixing.reweight, mixing.weights
    if reweight.kind == "regmix" and reweight.runs < LEAST_RUNS:
        raise BadPlan(f"{reweight.runs} tiny runs are too few to fit; set mixing.reweight.runs to {LEAST_RUNS} or more")
    if isinstance(given, dict) and (min(given.values(), default=0) < 0 or not 0 < sum(given.values()) <= 1):
        raise BadPlan("mixing.weights cannot be negative or sum to more than 1; domains left out share what remains")
    if isinstance(given, dict) and reweight.kind == "regmix":
        raise BadPlan("regmix finds the weights by itself; remove mixing.weights")


def _check_base(composition: Composition) -> None:
    if composition.mixing.kind != "everything":
        raise BadPlan("from the base, what came since would be lost; set mixing.kind to everything or start to live")
    if composition.schedule.kind == "infinite":
        raise BadPlan("the infinite schedule goes on from the live version's trunk; set start to live")
    if composition.keep_optimizer:
        raise BadPlan("the base has no optimizer moments; remove keep_optimizer or set start to live")


def _check_infinite(composition: Composition, schedule: InfiniteSettings, training: TrainingSettings) -> None:
    if composition.mixing.kind == "everything":
        raise BadPlan("the infinite schedule's trunk has seen the old rows; set mixing.kind to replay")
    if composition.mixing.kind == "weighted":
        raise BadPlan("the infinite schedule counts what its trunk leaves over by replay's share; choose cosine")
    if composition.selection.kind == "half":
        raise BadPlan("the infinite schedule continues its trunk's optimizer, but half needs a new one; choose cosine")
    if composition.keep_optimizer:
        raise BadPlan("the infinite schedule always continues its trunk's optimizer; remove keep_optimizer")
    if training.min_learning_rate_ratio == 0:
        raise BadPlan("the infinite schedule anneals exponentially and cannot reach 0; raise min_learning_rate_ratio")
    if schedule.constant_ratio < training.min_learning_rate_ratio:
        raise BadPlan("schedule.constant_ratio is below min_learning_rate_ratio; the anneal would raise the rate")
