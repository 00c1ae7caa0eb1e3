"""The mixing of a stage's train job, and the jobs before it that find its weights (METHODS 4)."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path

from strategies.agent import TRIED
from strategies.agent.folder import fingerprint
from strategies.contract import Explained, FitTemplate, ProxyTemplate, Template, TrainTemplate
from strategies.contract.regmix import FitSettings
from strategies.errors import BadPlan
from strategies.mixing.regmix import candidates
from strategies.mixing.skill_it import identity
from strategies.parts import (
    AgentReweighting,
    CosineSchedule,
    GroupDroObjective,
    Mixing,
    Reweighting,
    SkillItReweighting,
    WeightedMixing,
)
from strategies.planning import domains, share
from strategies.planning import values as resolve
from strategies.planning.domains import Domain
from strategies.planning.stage import Stage, replay
from strategies.settings.agent import ProxySettings
from strategies.settings.consolidation import KeepConsolidation
from strategies.settings.mixing import (
    WITHOUT,
    AgentMixSettings,
    DoReMiSettings,
    RegMixSettings,
    SkillItSettings,
    WeightedSettings,
)

MAIN = "train"
MIXTURE = "state/mixture"
"""Weights that a job leaves for a later one."""
FOUND_BEFORE = ("doremi", "regmix")
"""Re-weightings whose weights jobs before the stage's own find, whether or not anyone looks at losses in it."""
START_TOKENS = 160_000
"""Tokens of the start that RegMix's tiny runs share; every job makes it anew, so it must stay a small part of them."""


def of(stage: Stage, *, cursor: str | None, steps: int) -> Mixing:
    """What the stage's rows are drawn by."""
    settings = stage.composition.mixing
    if not isinstance(settings, WeightedSettings):
        return replay(stage, cursor=cursor)
    found = stage.domains
    first = domains.weights(found, settings, replay=float(stage.share))
    rest = found[0].name
    looked_at = any(domain.measured for domain in found)
    return WeightedMixing(
        domains={domain.name: domain.sources for domain in found},
        weights={name: text for name, text in domains.spelled(first).items() if name != rest},
        rest=rest,
        batch=stage.signals.training.train_batch_size,
        order=stage.values["order"].value,
        cursor=cursor,
        new=tuple(source for domain in found if domain.new for source in domain.sources),
        prior=domains.prior(found),
        similarity={domain.name: round(domain.similarity, 6) for domain in found},
        measured={domain.name: domain.measured for domain in found},
        divide=None if settings.domains.by == "batch" else settings.domains.by,
        space=stage.signals.space,
        observe_every=max(1, ceil(steps / settings.updates)) if looked_at else None,
        reweight=_reweight(settings, found) if looked_at else None,
        limits=settings.limits if looked_at or settings.reweight.kind in FOUND_BEFORE else None,
    )


def _reweight(settings: WeightedSettings, found: tuple[Domain, ...]) -> Reweighting | None:
    reweight = settings.reweight
    names = [domain.name for domain in found]
    if isinstance(reweight, SkillItSettings):
        graph = identity(names) if reweight.graph is None else _graph(reweight.graph, found)
        if reweight.targets:
            graph = _towards(graph, _measured_targets(reweight.targets, found))
        if not any(graph.values()):
            return None
        return SkillItReweighting(
            eta=reweight.eta, window=reweight.window, graph=graph, mean_loss=bool(reweight.targets)
        )
    if isinstance(reweight, AgentMixSettings) and reweight.folder is not None:
        return AgentReweighting(
            folder=reweight.folder,
            sha256=fingerprint(Path(reweight.folder)),
            patience=reweight.patience,
        )
    return None


def _towards(graph: dict[str, dict[str, float]], targets: frozenset[str]) -> dict[str, dict[str, float]]:
    """The edges that end at targets (METHODS 4.3: with target skills only)."""
    return {name: {to: edge for to, edge in row.items() if to in targets} for name, row in graph.items()}


def _measured_targets(targets: tuple[str, ...], found: tuple[Domain, ...]) -> frozenset[str]:
    measured = {domain.name for domain in found if domain.measured}
    return frozenset(one for name in targets for one in domains.called(found, name)) & measured


def _graph(graph: dict[str, dict[str, float]], found: tuple[Domain, ...]) -> dict[str, dict[str, float]]:
    """The graph between the domains that are there now; each helps itself."""
    edges: dict[str, dict[str, float]] = {domain.name: {domain.name: 1.0} for domain in found}
    for name, row in graph.items():
        helped = {one: edge for to, edge in row.items() for one in domains.called(found, to)}
        for one in domains.called(found, name):
            edges[one] |= helped
    return edges


def with_search(stage: Stage, main: TrainTemplate, *, name: str = MAIN) -> dict[str, Template]:
    """The train job ``name`` alone, or after those that find its mixture."""
    settings, mixing = stage.composition.mixing, main.mixing
    if not isinstance(settings, WeightedSettings) or not isinstance(mixing, WeightedMixing) or len(mixing.domains) == 1:
        return {name: main}
    if isinstance(settings.reweight, DoReMiSettings):
        before, found = _doremi(stage, main, mixing, settings.reweight)
    elif settings.search is not None and (settings.reweight.kind == "regmix" or mixing.reweight is not None):
        before, found = _regmix(stage, main, mixing, settings.search)
    else:
        return {name: main}
    return {**before, name: main.model_copy(update={"mixing": mixing.model_copy(update={"mixture": found})})}


def goes_on(mixing: Mixing, *, trunk: str) -> Mixing:
    """The same rows for a job after ``trunk``: where it stopped, with the weights that it ended with."""
    where = {"cursor": f"@{trunk}/state/mixing"}
    if not isinstance(mixing, WeightedMixing):
        return mixing.model_copy(update=where)
    ended = {"mixture": f"@{trunk}/{MIXTURE}", "reweight": None, "observe_every": None, "limits": None}
    return mixing.model_copy(update={**where, **ended})


def _doremi(
    stage: Stage, main: TrainTemplate, mixing: WeightedMixing, settings: DoReMiSettings
) -> tuple[dict[str, Template], str]:
    if min(_floats(mixing).values()) <= 0:
        raise BadPlan("doremi cannot weigh a domain whose first weight is 0; give every domain some in mixing.weights")
    steps = max(1, round(settings.share * stage.steps))
    short = {
        "steps": steps,
        "schedule": _shortened(stage, main, steps),
        "consolidation": KeepConsolidation(),
        "state": (),
        "optimizer": None,
    }
    plain = mixing.model_copy(update={"reweight": None, "cursor": None, "observe_every": None, "limits": None})
    reference = main.model_copy(update={**short, "mixing": plain})
    objective = GroupDroObjective(prior=_floats(mixing), eta=settings.eta, smoothing=settings.smoothing)
    found = {"objective": objective, "reference": "@reference/answer/model", "state": (MIXTURE,)}
    proxy = reference.model_copy(update=found)
    return {"reference": reference, "proxy": proxy}, f"@proxy/{MIXTURE}"


def _shortened(stage: Stage, main: TrainTemplate, steps: int) -> CosineSchedule:
    """A cosine over so many steps; a trunk's rate never ends, so that its proxies have one of their own."""
    if isinstance(main.schedule, CosineSchedule):
        return main.schedule.model_copy(update={"steps": steps, "warmup": min(main.schedule.warmup, steps // 2)})
    schedule = main.schedule
    warmup = resolve.warmup(stage.signals.training, steps).value
    return CosineSchedule(steps=steps, warmup=warmup, lr=schedule.constant_lr, min_lr=schedule.min_lr)


def _regmix(
    stage: Stage, main: TrainTemplate, mixing: WeightedMixing, settings: RegMixSettings
) -> tuple[dict[str, Template], str]:
    signals, found = stage.signals, stage.domains
    prior = domains.prior(found)
    drawn = candidates(prior, settings.runs, seed=f"regmix {stage.values['order'].value}")
    share_of = ceil(settings.runs / settings.jobs)
    proxy = ProxySettings(
        step_tokens=settings.tokens,
        steps=1,
        initial_steps=max(1, round(START_TOKENS / settings.tokens)),
        hidden=settings.hidden,
        layers=settings.layers,
        max_parameters=settings.max_parameters,
        seed=signals.training.seed,
    )
    proxies: dict[str, Template] = {
        f"proxy-{at + 1}": ProxyTemplate(
            init=main.init,
            mixing=mixing,
            mixtures=tuple(drawn[first : first + share_of]),
            targets=tuple(domain.name for domain in found if domain.new),
            proxy=proxy,
            training=signals.training,
        )
        for at, first in enumerate(range(0, settings.runs, share_of))
    }
    fit = FitTemplate(
        init=main.init,
        runs=tuple(f"@{name}/evidence/runs" for name in proxies),
        fit=_fit(stage, prior, settings),
        training=signals.training,
    )
    return {**proxies, "fit": fit}, f"@fit/{MIXTURE}"


def _fit(stage: Stage, prior: Mapping[str, float], settings: RegMixSettings) -> FitSettings:
    found = stage.domains
    old, new = (tuple(domain.name for domain in found if domain.new is side) for side in (False, True))
    rows = max(1, resolve.total_rows((*stage.signals.new, *share.replayable(stage.signals))))
    tokens_a_row = sum(domain.tokens for domain in found) / rows
    return FitSettings(
        prior=dict(prior),
        tokens={domain.name: float(max(1, domain.tokens)) for domain in found},
        budget=max(1.0, stage.steps * stage.signals.training.train_batch_size * tokens_a_row),
        epochs_max=settings.epochs_max,
        old=old,
        new=new,
        old_weight=settings.old_weight if old else 0.0,
        seed=stage.signals.training.seed,
    )


def _floats(mixing: WeightedMixing) -> dict[str, float]:
    weights = {name: float(weight) for name, weight in mixing.weights.items()}
    return {**weights, mixing.rest: 1 - sum(weights.values())}


def explained(stage: Stage, mixing: Mixing) -> dict[str, Explained]:
    """What a weighted mixing resolved, worth recording."""
    settings = stage.composition.mixing
    if not isinstance(settings, WeightedSettings) or not isinstance(mixing, WeightedMixing):
        return {}
    given = resolve.SETTINGS if isinstance(settings.first, dict) else f"weights: {settings.first}"
    gone = domains.absent(stage.domains, settings)
    left_out = {"left_out": Explained(value=gone, origin="settings name them, but they are not there now")}
    agent = mixing.reweight if isinstance(mixing.reweight, AgentReweighting) else None
    return {
        **({} if agent is None else {"agent": Explained(value=agent.sha256, origin=agent.folder)}),
        "domains": Explained(value=list(mixing.domains), origin=f"by {settings.domains.by}"),
        "weights": Explained(value=_floats(mixing), origin=given),
        **(left_out if gone else {}),
        "reweight": Explained(value=settings.reweight.kind, origin=_why(settings, mixing)),
        "observe_every": Explained(value=mixing.observe_every, origin=f"{settings.updates} updates over the stage"),
    }


def _why(settings: WeightedSettings, mixing: WeightedMixing) -> str:
    kind = settings.reweight.kind
    if kind != "none" and len(mixing.domains) == 1:
        return "settings, but there is one domain alone: nothing is to be weighed"
    if kind not in ("none", *FOUND_BEFORE) and mixing.observe_every is None:
        return "settings, but no domain has an eval set: the weights stay"
    if settings.reweight.kind == "skill-it" and mixing.reweight is None:
        return "settings, but none of its targets is there now with an eval set: the weights stay"
    if settings.reweight.kind == "agent" and mixing.reweight is None:
        return f"settings, but no agent is given and none ships: {TRIED}. {WITHOUT}"
    return resolve.SETTINGS
