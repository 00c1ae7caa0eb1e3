"""How much of each model is in what a merge makes of them (METHODS 7), from settings alone: no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from strategies.settings.merging import (
    GreedySoupMerge,
    HalfResetMerge,
    InterpolateMerge,
    LinesMerge,
    Merge,
    SoupMerge,
    TaskArithmeticMerge,
    combining,
    goes_back,
)


def shares(method: Merge, *, base: str, weights: Mapping[str, float], kept: Collection[str] = ()) -> dict[str, float]:
    """Role -> how much of it is in the result, of members with these weights: a share of a mean; else the weight.

    The base stands among them only where it is gone back to. ``kept`` are the members that a greedy soup chose.
    """
    back = share_gone_back(method)
    if back is not None:
        (candidate,) = weights
        return {base: back, candidate: 1 - back}
    if isinstance(method, GreedySoupMerge):
        return {role: 1 / len(kept) if role in kept else 0.0 for role in weights}
    total = sum(weights.values()) if isinstance(combining(method), SoupMerge) else 1.0
    return {role: weight / total for role, weight in weights.items()}


def base_share(method: Merge, weights: Collection[float]) -> float:
    """How much of a base that is no member is in the result: 1 less the factors on the members' changes.

    0 for means of the members; 1 where changes are chosen or scaled number by number and added to the whole base.
    """
    inner = combining(method)
    if inner.mean:
        return 0.0
    if isinstance(inner, TaskArithmeticMerge):
        return 1 - inner.lam * sum(weights)
    return 1.0


def share_gone_back(method: Merge) -> float | None:
    """How much of the version gone back to is in the result; None for methods that count changes from a base alike.

    For LiNeS the mean over the blocks, for half-reset the half that its matrices stand for.
    """
    match method:
        case InterpolateMerge():
            return method.share
        case HalfResetMerge():
            return 0.5
        case LinesMerge() if goes_back(method):
            return 1 - _kept_by_lines(method)
        case _:
            return None


def _kept_by_lines(method: LinesMerge) -> float:
    """How much of one candidate's change LiNeS keeps, in the mean over the blocks."""
    before = 1.0 if method.after is None else 1 - (share_gone_back(method.after) or 0.0)
    # After a merge the first block gets back what the merge took off the norm of the change.
    alpha = method.alpha if method.alpha is not None else 1 / before if before else 1.0
    beta = method.beta if method.beta is not None else 1 - alpha
    return before * (alpha + beta / 2)
