"""How much of each model is in a merge's result."""

from __future__ import annotations

import pytest

from strategies.merging.shares import base_share, shares
from strategies.settings.merging import (
    FisherMerge,
    GreedySoupMerge,
    InterpolateMerge,
    LinesMerge,
    Merge,
    SoupMerge,
    TaskArithmeticMerge,
    TiesMerge,
)

THREE = {"v2": 3.0, "v3": 1.0, "v4": 0.0}


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (SoupMerge(), {"v2": 0.75, "v3": 0.25, "v4": 0.0}),
        (LinesMerge(beta=0.5, after=SoupMerge()), {"v2": 0.75, "v3": 0.25, "v4": 0.0}),
        (GreedySoupMerge(), {"v2": 0.5, "v3": 0.0, "v4": 0.5}),
        (TaskArithmeticMerge(), THREE),
        (TiesMerge(), THREE),
    ],
)
def test_members_of_a_mean_share_it_and_others_keep_their_weights(method: Merge, wanted: dict[str, float]) -> None:
    assert shares(method, base="v1", weights=THREE, kept=("v2", "v4")) == wanted


def test_what_goes_back_shares_the_result_with_the_base() -> None:
    assert shares(InterpolateMerge(share=0.25), base="v1", weights={"v2": 1.0}) == {"v1": 0.25, "v2": 0.75}


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (SoupMerge(), 0.0),
        (FisherMerge(), 0.0),
        (TaskArithmeticMerge(lam=0.4), 0.2),
        (LinesMerge(beta=0.5, after=TaskArithmeticMerge(lam=0.4)), 0.2),
        (TiesMerge(), 1.0),
    ],
)
def test_a_base_keeps_what_the_members_changes_leave_of_it(method: Merge, wanted: float) -> None:
    assert base_share(method, [1.0, 1.0]) == pytest.approx(wanted)
