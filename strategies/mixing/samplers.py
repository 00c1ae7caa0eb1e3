"""The sampler of each mixing."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.mixing.replay import Lengths, ReplayMixer
from strategies.mixing.skill_it import SkillIt
from strategies.mixing.weighted import Reweighting, WeightedMixer
from strategies.parts import Mixing, ReplayMixing, SkillItReweighting, WeightedMixing
from strategies.settings import Json


def mixer(
    mixing: Mixing,
    rows: Mapping[str, int],
    *,
    steps: int,
    state: Json | None = None,
    policy: Reweighting | None = None,
    tokens: Mapping[str, Lengths] | None = None,
) -> ReplayMixer | WeightedMixer:
    """The sampler that a plan's mixing describes; ``policy`` takes the place of the one that the mixing names.

    Given ``tokens`` of every row, replay's shares are of these.
    """
    if isinstance(mixing, ReplayMixing):
        return ReplayMixer(mixing, rows, state, tokens=tokens)
    return WeightedMixer(mixing, rows, steps=steps, state=state, policy=policy or _policy(mixing))


def _policy(mixing: WeightedMixing) -> Reweighting | None:
    if not isinstance(mixing.reweight, SkillItReweighting):
        return None
    return SkillIt(mixing.reweight, mixing.first_weights)
