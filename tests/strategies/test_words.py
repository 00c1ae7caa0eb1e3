"""Numbers with their nouns."""

import pytest

from strategies.words import counted
from tests.strategies.makers import plan, signals, source


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(0, "0 batches"), (1, "1 batch"), (2, "2 batches"), (1_202_176, "1202176 batches"), (0.5, "0.5 batches")],
)
def test_one_is_one_and_all_else_are_many(count: float, wanted: str) -> None:
    assert counted(count, "batch", many="batches") == wanted


def test_a_plan_of_one_step_is_in_the_singular() -> None:
    made = plan(signals(new=(source("batch-3", 1),), old=(), training={"train_batch_size": 8}), name="rewarm-replay")
    assert "decays it over 1 step, with 5% replay of 1 old source in every step" in made.reason
    assert made.values["steps"].origin == "1 epoch of 1 row in batches of 8"
    trunk = plan(signals(new=(source("batch-3", 32),)), schedule="infinite")
    assert "1 step down to rate" in trunk.reason
    assert "after 1 step of annealing" in trunk.reason
