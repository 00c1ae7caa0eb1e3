"""Data mixing: every batch a domain, first weights as in replay, re-weighted by Skill-It (Chen et al. 2023).

No agent ships, so that the default is what needs no training: see ``TRIED`` and ``UNTAUGHT``.
"""

from __future__ import annotations

from strategies.agent import TRIED, UNTAUGHT
from strategies.settings.composition import Composition, Named
from strategies.settings.mixing import WITHOUT, SkillItSettings, WeightedSettings

DATA_MIXING = Named(
    name="data-mixing",
    summary="fine-tune the live model on all domains, with weights that follow what is still hard",
    sources=("arXiv 2307.14430", "arXiv 2305.10429", "arXiv 2407.01492", "arXiv 2507.15640"),
    composition=Composition(mixing=WeightedSettings(reweight=SkillItSettings())),
    note=f"no agent ships: {TRIED}. {WITHOUT}. {UNTAUGHT[0].upper()}{UNTAUGHT[1:]}",
)
