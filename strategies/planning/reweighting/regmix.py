"""RegMix (METHODS 4.2): jobs of tiny runs, and a job that fits them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from strategies.contract import FitTemplate, ProxyTemplate, Template, TrainTemplate
from strategies.contract.regmix import FitSettings
from strategies.mixing.regmix import candidates
from strategies.parts import WeightedMixing
from strategies.planning import common, domains, share
from strategies.planning.reweighting.method import MIXTURE, Method, Search
from strategies.planning.stage import Stage
from strategies.settings.agent import ProxySettings
from strategies.settings.mixing import RegMixSettings

START_TOKENS = 160_000
"""Tokens of the start that the tiny runs share; every job makes it anew, so it must stay a small part of them."""


class RegMix(Method[RegMixSettings]):
    """The mixture that a regression over tiny runs chooses."""

    before = True
    needs_tokens = "tries mixtures on tiny language models"

    def search(
        self, settings: RegMixSettings, stage: Stage, main: TrainTemplate, mixing: WeightedMixing
    ) -> Search | None:
        return search(settings, stage, main, mixing)


def search(settings: RegMixSettings, stage: Stage, main: TrainTemplate, mixing: WeightedMixing) -> Search:
    """The proxy jobs and the fit, for a stage's own mixture or for an agent's guard."""
    prior = domains.prior(stage.domains)
    drawn = candidates(prior, settings.runs, seed=f"regmix {stage.values['order'].value}")
    share_of = ceil(settings.runs / settings.jobs)
    proxies: dict[str, Template] = {
        f"proxy-{at + 1}": ProxyTemplate(
            init=main.init,
            mixing=mixing,
            mixtures=tuple(drawn[first : first + share_of]),
            targets=tuple(domain.name for domain in stage.domains if domain.new),
            proxy=_proxy(settings, seed=stage.signals.training.seed),
            training=stage.signals.training,
        )
        for at, first in enumerate(range(0, settings.runs, share_of))
    }
    fit = FitTemplate(
        init=main.init,
        runs=tuple(f"@{name}/evidence/runs" for name in proxies),
        fit=_fit(stage, prior, settings, epochs_max=mixing.limits.epochs_max if mixing.limits else None),
        training=stage.signals.training,
    )
    return Search(jobs={**proxies, "fit": fit}, found=f"@fit/{MIXTURE}")


def _proxy(settings: RegMixSettings, *, seed: int) -> ProxySettings:
    return ProxySettings(
        step_tokens=settings.tokens,
        steps=1,
        initial_steps=max(1, round(START_TOKENS / settings.tokens)),
        hidden=settings.hidden,
        layers=settings.layers,
        max_parameters=settings.max_parameters,
        seed=seed,
    )


def _fit(
    stage: Stage, prior: Mapping[str, float], settings: RegMixSettings, *, epochs_max: float | None
) -> FitSettings:
    found = stage.domains
    old, new = (tuple(domain.name for domain in found if domain.new is side) for side in (False, True))
    rows = max(1, common.total_rows((*stage.signals.new, *share.replayable(stage.signals))))
    tokens_a_row = sum(domain.tokens for domain in found) / rows
    return FitSettings(
        prior=dict(prior),
        tokens={domain.name: float(max(1, domain.tokens)) for domain in found},
        budget=max(1.0, stage.steps * stage.signals.training.train_batch_size * tokens_a_row),
        epochs_max=epochs_max,
        old=old,
        new=new,
        old_weight=settings.old_weight if old else 0.0,
        seed=stage.signals.training.seed,
    )
