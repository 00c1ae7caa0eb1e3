"""How models are merged, and how weights are averaged while training: settings only, no torch (METHODS 7.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from strategies.settings import Closed


class MergeMethod(Closed):
    """One way to merge; what others have to know of it stands in its class."""

    kind: str
    weighted: ClassVar[bool] = False
    """It heeds its parents' weights; else every parent counts alike."""
    mean: ClassVar[bool] = False
    """It averages models: nothing of a base that is no parent is in it, and one model alone has no average."""
    goes_back: ClassVar[bool] = False
    """It goes back from the one model that it is given."""


class SoupMerge(MergeMethod):
    """The weighted mean of the models (Wortsman et al. 2022, uniform soup)."""

    kind: Literal["soup"] = Field("soup", description="the weighted mean of the models")
    weighted: ClassVar[bool] = True
    mean: ClassVar[bool] = True


class GreedySoupMerge(MergeMethod):
    """The best model first; another joins if the mean with it scores higher on ``select`` (Wortsman et al. 2022)."""

    kind: Literal["greedy-soup"] = Field("greedy-soup", description="the mean of those models that make it better")
    mean: ClassVar[bool] = True


class TaskArithmeticMerge(MergeMethod):
    """The base plus ``lam`` times the sum of all models' changes of it (Ilharco et al. 2023)."""

    kind: Literal["task-arithmetic"] = Field("task-arithmetic", description="the base plus the summed changes, scaled")
    weighted: ClassVar[bool] = True
    lam: float = Field(
        0.4, ge=-2, le=2, description="scale of the summed changes, usually 0 to 1; below 0 the model unlearns them"
    )


class TiesMerge(MergeMethod):
    """Small changes are dropped; of each number, changes of the prevailing sign are averaged (Yadav et al. 2023)."""

    kind: Literal["ties"] = Field("ties", description="the mean of the largest changes that agree in sign")
    density: float = Field(0.2, gt=0, le=1, description="share of each model's changes that stays, the largest first")
    lam: float = Field(1.0, ge=-2, le=2, description="scale of the merged change")


class DareMerge(MergeMethod):
    """Changes are dropped at random, the rest is scaled up and merged (Yu et al. 2024); for small changes only."""

    kind: Literal["dare"] = Field("dare", description="a merge of what is left after changes were dropped at random")
    drop: float = Field(
        0.9, ge=0, lt=1, description="probability that a change is dropped; the rest is divided by 1 - drop"
    )
    then: Literal["mean", "ties"] = Field("mean", description="how the changes that are left are merged")
    density: float = Field(0.2, gt=0, le=1, description="then ties: share of each model's changes that stays")
    lam: float = Field(1.0, ge=-2, le=2, description="scale of the merged change")
    seed: int = Field(1234, ge=0, description="seed of the draw, which differs for every model and tensor")


class PcbMerge(MergeMethod):
    """Parameter competition balancing: changes compete within each model and between models (Du et al. 2024)."""

    kind: Literal["pcb"] = Field("pcb", description="the mean of the best-scored changes, weighted by their scores")
    ratio: float = Field(
        0.1, gt=0, le=1, description="share of each model's changes that counts, the best-scored first"
    )
    lam: float = Field(1.2, ge=-2, le=2, description="scale of the merged change, usually 0.8 to 1.3")
    clip: float = Field(
        1e-4,
        ge=0,
        le=0.1,
        description="share of the largest and of the smallest changes that is clipped first; 0: none",
    )


class FisherMerge(MergeMethod):
    """The mean weighted by each model's Fisher information (Matena and Raffel 2022).

    Of classifiers it is exact over their labels; ``estimator`` is for language models.
    """

    kind: Literal["fisher"] = Field("fisher", description="the mean, each number weighted by its Fisher information")
    weighted: ClassVar[bool] = True
    mean: ClassVar[bool] = True
    estimator: Literal["sampled", "empirical"] = Field(
        "sampled",
        description="language models: whether the gradients are of tokens drawn from the model (sampled) or of the"
        " tokens that stand in the text (empirical)",
    )
    floor: float = Field(1e-6, gt=0, description="least Fisher information of any number, after normalise")
    documents: int = Field(256, ge=1, description="documents that the Fisher information is estimated from")
    normalise: bool = Field(True, description="divide each model's Fisher information by its norm")


class InterpolateMerge(MergeMethod):
    """The trained model with a share of the model that it started from."""

    kind: Literal["interpolate"] = Field("interpolate", description="the mean of the model and the one it started from")
    goes_back: ClassVar[bool] = True
    share: float = Field(0.5, ge=0, le=1, description="weight of the model that training started from")


class HalfResetMerge(MergeMethod):
    """Some whole matrices go back to the values that they started from (METHODS 2.1).

    A job's record names them by value, whoever chose them.
    """

    kind: Literal["half-reset"] = Field("half-reset", description="some matrices go back to where they started from")
    goes_back: ClassVar[bool] = True
    names: tuple[str, ...] | None = Field(
        None, min_length=1, description="tensors that go back; default: half of the matrices, drawn at random"
    )
    seed: int = Field(1234, ge=0, description="seed of that draw")


OneStep = SoupMerge | TaskArithmeticMerge | TiesMerge | DareMerge | PcbMerge | FisherMerge | InterpolateMerge
Plain = Annotated[OneStep | HalfResetMerge, Field(discriminator="kind")]
"""Merges that LiNeS can follow."""


def by_name(raw: object, key: str) -> object:
    """A word is a method with its defaults."""
    if isinstance(raw, dict) and isinstance(raw.get(key), str):
        return {**raw, key: {"kind": raw[key]}}
    return raw


class LinesMerge(MergeMethod):
    """The change of block l of L is scaled by ``alpha + beta * (l - 1) / (L - 1)`` (Wang et al. 2025).

    On one candidate's change, or on that of the merge ``after``. Parameters outside the blocks are scaled by ``alpha``.
    """

    kind: Literal["lines"] = Field("lines", description="a change that is scaled block by block, the last blocks most")
    goes_back: ClassVar[bool] = True
    alpha: float | None = Field(
        None,
        ge=0,
        description="scale of the first block's change; after a merge the default comes from the changes' norms, on one"
        " model there is none",
    )
    beta: float | None = Field(
        None, description="added to that scale for the last block; default on one model: 1 - alpha, after a merge: none"
    )
    after: Plain | None = Field(None, description="the merge whose change is scaled; default: the change of one model")

    @model_validator(mode="before")
    @classmethod
    def _after_by_name(cls, raw: object) -> object:
        return by_name(raw, "after")

    @model_validator(mode="after")
    def _known(self) -> LinesMerge:
        if self.after is None and self.alpha is None:
            raise ValueError("alpha is needed on one candidate; 0.5 keeps half of the first block's change")
        if self.after is not None and self.beta is None:
            raise ValueError("beta is tuned after a merge and has no default; try 0.5")
        return self


class RepairMerge(MergeMethod):
    """Several cheap ways back towards the parent, chosen on ``select``: most of the gain, within every tolerance."""

    kind: Literal["repair"] = Field("repair", description="several ways back towards the parent, of which the best")
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.25, 0.5, 0.75), description="interpolations: weights of the parent"
    )
    alphas: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.5,), description="LiNeS: scales of the first block's change; the last block keeps all of it"
    )
    half_resets: int = Field(1, ge=0, le=8, description="random halves of the matrices to try at the parent's values")


Merge = Annotated[
    OneStep | GreedySoupMerge | HalfResetMerge | LinesMerge | RepairMerge,
    Field(discriminator="kind"),
]


def combining(method: Merge) -> Merge:
    """What makes one change of the parents' changes: of ``lines`` the merge that it follows, else the method itself."""
    return method.after if isinstance(method, LinesMerge) and method.after is not None else method


BY_HAND: dict[str, type[MergeMethod]] = {
    str(one.model_fields["kind"].default): one for one in get_args(get_args(Merge)[0]) if one is not RepairMerge
}
"""Methods that a user may ask for by name; a repair is the gate's own."""


def wrong_weights(method: Merge, weights: Sequence[float]) -> str | None:
    """Why these weights, one a version, do not go with a method; None: they do. No weights at all always do."""
    inner = combining(method)
    if not weights:
        return None
    if not inner.weighted:
        others = ", ".join(name for name, one in BY_HAND.items() if one.weighted)
        return f"{inner.kind} counts its versions alike; leave the weights out, or choose {others}"
    if not math.isfinite(sum(map(abs, weights))) or not any(weights):
        return "weights are finite numbers, and so is their sum; not all of them are 0"
    if inner.mean and min(weights) < 0:
        return f"{inner.kind} is a mean, whose weights are 0 or more; task-arithmetic takes weights below 0"
    return None


def goes_back(method: Merge) -> bool:
    """Whether one version goes back towards another, instead of several becoming one."""
    return combining(method).goes_back
