"""Settings that a strategy would ignore, or that contradict each other, are refused with the reason."""

import pytest

from strategies import compose, named
from strategies.errors import BadPlan
from strategies.settings import InfiniteSettings, StrategySettings, TrainingSettings
from tests.strategies.makers import plan, signals

FAST = InfiniteSettings(cooldown=0.1)


@pytest.mark.parametrize("name", ["naive", "retrain"])
@pytest.mark.parametrize(
    "given",
    [
        {"replay": 0.1},
        {"schedule": "infinite"},
        {"infinite": FAST},
        {"warmup_start": "eta_min"},
        {"keep_optimizer": True},
    ],
)
def test_a_strategy_refuses_settings_that_it_does_not_use(name, given):
    with pytest.raises(BadPlan, match=f"{name} does not use {next(iter(given))}"):
        plan(name=name, **given)


@pytest.mark.parametrize(
    ("given", "training", "reason"),
    [
        ({"infinite": FAST}, {}, "schedule is cosine"),
        ({"schedule": "infinite", "keep_optimizer": True}, {}, "remove keep_optimizer"),
        ({"schedule": "infinite", "warmup_start": "last_lr"}, {}, "remove warmup_start"),
        ({"schedule": "infinite"}, {"min_learning_rate_ratio": 0}, "cannot reach 0"),
        ({"schedule": "infinite"}, {"min_learning_rate_ratio": 0.9}, "constant_ratio is below"),
    ],
)
def test_contradictions_are_refused(given, training, reason):
    with pytest.raises(BadPlan, match=reason):
        plan(signals(training), **given)


def test_every_strategy_says_which_settings_it_uses():
    assert set(compose.USES) == set(named.NAMES)
    fields = set(StrategySettings.model_fields) - {"name"}
    assert set().union(*compose.USES.values()) == fields
    assert all(compose.USES[name] <= fields for name in named.NAMES)


def test_defaults_count_as_not_given():
    compose.check(StrategySettings(name="naive", schedule="cosine", keep_optimizer=False), TrainingSettings())
