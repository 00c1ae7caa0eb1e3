"""What may be combined with what: settings that a strategy would ignore are refused with the reason."""

from __future__ import annotations

from strategies.errors import BadPlan
from strategies.settings import InfiniteSettings, StrategySettings, TrainingSettings

REWARM_REPLAY = frozenset({"replay", "schedule", "infinite", "warmup_start", "keep_optimizer"})
USES: dict[str, frozenset[str]] = {
    "auto": REWARM_REPLAY,
    "naive": frozenset(),
    "retrain": frozenset(),
    "rewarm-replay": REWARM_REPLAY,
}
"""Strategy settings that each strategy uses, beside its name."""


def given(settings: StrategySettings) -> frozenset[str]:
    """Strategy settings that differ from their defaults."""
    plain = StrategySettings(name=settings.name)
    fields = set(StrategySettings.model_fields) - {"name"}
    return frozenset(field for field in fields if getattr(settings, field) != getattr(plain, field))


def check(settings: StrategySettings, training: TrainingSettings) -> None:
    """Refuse settings that the strategy does not use, or that contradict each other."""
    unused = sorted(given(settings) - USES[settings.name])
    if unused:
        raise BadPlan(f"strategy {settings.name} does not use {unused[0]}; remove it or choose rewarm-replay")
    if settings.schedule == "infinite":
        _check_infinite(settings, training)
    elif settings.infinite != InfiniteSettings():
        raise BadPlan("infinite is set but the schedule is cosine; set schedule to infinite or remove it")


def _check_infinite(settings: StrategySettings, training: TrainingSettings) -> None:
    if settings.keep_optimizer:
        raise BadPlan("the infinite schedule always continues its trunk's optimizer; remove keep_optimizer")
    if settings.warmup_start != "zero":
        raise BadPlan("the infinite schedule warms up once, from zero; remove warmup_start")
    if training.min_learning_rate_ratio == 0:
        raise BadPlan("the infinite schedule anneals exponentially and cannot reach 0; raise min_learning_rate_ratio")
    if settings.infinite.constant_ratio < training.min_learning_rate_ratio:
        raise BadPlan("infinite.constant_ratio is below min_learning_rate_ratio; the anneal would raise the rate")
