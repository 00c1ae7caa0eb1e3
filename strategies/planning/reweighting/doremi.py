"""DoReMi (METHODS 4.4): a reference job and a proxy job before the main one."""

from __future__ import annotations

from strategies.contract import TrainTemplate
from strategies.errors import BadPlan
from strategies.parts import CosineSchedule, GroupDroObjective, WeightedMixing
from strategies.planning import common
from strategies.planning.reweighting.method import MIXTURE, Method, Search
from strategies.planning.stage import Stage
from strategies.settings.consolidation import KeepConsolidation
from strategies.settings.mixing import DoReMiSettings


class DoReMi(Method[DoReMiSettings]):
    """Weights of the domains that lag a reference model."""

    from_first = True
    before = True
    needs_tokens = "compares the loss of every token"
    takes_models = "proxies are models, which no bank takes adapters from"

    def search(
        self, settings: DoReMiSettings, stage: Stage, main: TrainTemplate, mixing: WeightedMixing
    ) -> Search | None:
        weights = mixing.first_weights
        if min(weights.values()) <= 0:
            raise BadPlan(
                "doremi cannot weigh a domain whose first weight is 0; give every domain some in mixing.weights"
            )
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
        objective = GroupDroObjective(prior=weights, eta=settings.eta, smoothing=settings.smoothing)
        found = {"objective": objective, "reference": "@reference/answer/model", "state": (MIXTURE,)}
        proxy = reference.model_copy(update=found)
        return Search(jobs={"reference": reference, "proxy": proxy}, found=f"@proxy/{MIXTURE}")


def _shortened(stage: Stage, main: TrainTemplate, steps: int) -> CosineSchedule:
    """A cosine over so many steps; a trunk's rate never ends, so that its proxies have one of their own."""
    if isinstance(main.schedule, CosineSchedule):
        return main.schedule.model_copy(update={"steps": steps, "warmup": min(main.schedule.warmup, steps // 2)})
    schedule = main.schedule
    warmup = common.warmup(stage.signals.training, steps).value
    return CosineSchedule(steps=steps, warmup=warmup, lr=schedule.constant_lr, min_lr=schedule.min_lr)
