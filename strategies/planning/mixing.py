"""The mixing of a stage's train job, and the jobs before it that find its weights (METHODS 4)."""

from __future__ import annotations

from math import ceil

from strategies.contract import Explained, Template, TrainTemplate
from strategies.parts import Mixing, WeightedMixing
from strategies.planning import common, domains
from strategies.planning.reweighting import MIXTURE, method_of
from strategies.planning.stage import Stage, replay
from strategies.settings.mixing import WeightedSettings

MAIN = "train"


def of(stage: Stage, *, cursor: str | None, steps: int) -> Mixing:
    """What the stage's rows are drawn by."""
    settings = stage.composition.mixing
    if not isinstance(settings, WeightedSettings):
        return replay(stage, cursor=cursor)
    found, method = stage.domains, method_of(settings.reweight)
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
        reweight=method.record(settings.reweight, found) if looked_at else None,
        limits=settings.limits if looked_at or method.before else None,
    )


def with_search(stage: Stage, main: TrainTemplate, *, name: str = MAIN) -> dict[str, Template]:
    """The train job ``name`` alone, or after those that find its mixture."""
    settings, mixing = stage.composition.mixing, main.mixing
    if not isinstance(settings, WeightedSettings) or not isinstance(mixing, WeightedMixing) or len(mixing.domains) == 1:
        return {name: main}
    search = method_of(settings.reweight).search(settings.reweight, stage, main, mixing)
    if search is None:
        return {name: main}
    found = mixing.model_copy(update={"mixture": search.found})
    return {**search.jobs, name: main.model_copy(update={"mixing": found})}


def goes_on(mixing: Mixing, *, trunk: str) -> Mixing:
    """The same rows for a job after ``trunk``: where it stopped, with the weights that it ended with."""
    where = {"cursor": f"@{trunk}/state/mixing"}
    if not isinstance(mixing, WeightedMixing):
        return mixing.model_copy(update=where)
    ended = {"mixture": f"@{trunk}/{MIXTURE}", "reweight": None, "observe_every": None, "limits": None}
    return mixing.model_copy(update={**where, **ended})


def explained(stage: Stage, mixing: Mixing) -> dict[str, Explained]:
    """What a weighted mixing resolved, worth recording."""
    settings = stage.composition.mixing
    if not isinstance(settings, WeightedSettings) or not isinstance(mixing, WeightedMixing):
        return {}
    given = common.SETTINGS if isinstance(settings.first, dict) else f"weights: {settings.first}"
    gone = domains.absent(stage.domains, settings)
    left_out = {"left_out": Explained(value=gone, origin="settings name them, but they are not there now")}
    return {
        **method_of(settings.reweight).explained(mixing),
        "domains": Explained(value=list(mixing.domains), origin=f"by {settings.domains.by}"),
        "weights": Explained(value=mixing.first_weights, origin=given),
        **(left_out if gone else {}),
        "reweight": Explained(value=settings.reweight.kind, origin=_why(settings, mixing)),
        "observe_every": Explained(value=mixing.observe_every, origin=f"{settings.updates} updates over the stage"),
    }


def _why(settings: WeightedSettings, mixing: WeightedMixing) -> str:
    kind, method = settings.reweight.kind, method_of(settings.reweight)
    if kind == "none" or (method.before and len(mixing.domains) > 1):
        return common.SETTINGS
    if len(mixing.domains) == 1:
        return f"{common.SETTINGS}, but there is one domain alone: nothing is to be weighed"
    if mixing.observe_every is None:
        return f"{common.SETTINGS}, but no domain has an eval set: the weights stay"
    idle = method.idle(mixing)
    return common.SETTINGS if idle is None else f"{common.SETTINGS}, but {idle}"
