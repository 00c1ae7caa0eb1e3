"""The strategy of a stream: a name, and any screw turned otherwise; from signals to a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from strategies import planning
from strategies.chooser import auto, probing
from strategies.chooser.probing import Probing
from strategies.contract import Plan, Signals
from strategies.errors import BadPlan
from strategies.named import NAMED
from strategies.planning import refusals
from strategies.settings import Closed, Json, Task, TrainingSettings
from strategies.settings.composition import SCREWS, Composition, Named
from strategies.settings.consolidation import ConsolidationSettings
from strategies.settings.mixing import MixingSettings
from strategies.settings.objective import ObjectiveSettings
from strategies.settings.probe import ProbeSettings
from strategies.settings.schedule import ScheduleSettings
from strategies.settings.selection import SelectionSettings

NAMES: tuple[str, ...] = (auto.NAME, *(one.name for one in NAMED))


class StrategySettings(Closed):
    """How to retrain: a named strategy, and what is set otherwise than it has it."""

    name: Literal[NAMES] = Field(auto.NAME, description="strategy; auto chooses one at each retrain and says why")  # type: ignore[valid-type]
    start: Literal["live", "base"] | None = Field(
        None, description="which model training starts from; default: as the strategy has it"
    )
    mixing: MixingSettings | None = Field(
        None, description="which rows are trained on, in which proportion; default: as the strategy has it"
    )
    selection: SelectionSettings | None = Field(
        None, description="which parameters move; default: as the strategy has it"
    )
    schedule: ScheduleSettings | None = Field(
        None, description="the learning rate over the stage; default: as the strategy has it"
    )
    objective: ObjectiveSettings | None = Field(
        None, description="which loss is minimised; default: as the strategy has it"
    )
    consolidation: ConsolidationSettings | None = Field(
        None, description="how the result joins what came before; default: as the strategy has it"
    )
    keep_optimizer: bool | None = Field(
        None, description="go on with the optimizer's moments; default: as the strategy has it"
    )
    probe: ProbeSettings | None = Field(
        None, description="auto: try the best few compositions in short runs before it chooses; default: none is tried"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_kinds(cls, raw: Any) -> Any:
        """A word is a screw's kind; a screw without ``kind`` is the named strategy's but for the given keys."""
        if not isinstance(raw, Mapping):
            return raw
        usual = _usual(raw.get("name", auto.NAME))
        return {key: _with_kind(value, usual, key) if key in SCREWS else value for key, value in raw.items()}


def turned(settings: StrategySettings) -> Json:
    """The screws that the user turned, as fields of a composition."""
    fields = set(Composition.model_fields)
    return {field: getattr(settings, field) for field in fields if getattr(settings, field) is not None}


def resolved(settings: StrategySettings) -> Json:
    """The strategy with every screw as it stands; of auto, which chooses them, only those that the user turned."""
    given = {
        key: value.model_dump(mode="json") if isinstance(value, Closed) else value
        for key, value in turned(settings).items()
    }
    usual = {} if settings.name == auto.NAME else get(settings.name).composition.model_dump(mode="json")
    tried = {} if settings.probe is None else {"probe": settings.probe.model_dump(mode="json")}
    return {"name": settings.name, **usual, **given, **tried}


def plan(signals: Signals, settings: StrategySettings) -> Plan:
    """The plan that the settings lead to; raises BadPlan where there is none."""
    if settings.name == auto.NAME:
        return auto.plan(signals, turned(settings))
    named = get(settings.name)
    return planning.plan(signals, named.composition.model_copy(update=turned(settings)), strategy=named.name)


def check(settings: StrategySettings, training: TrainingSettings, task: Task) -> None:
    """Refuse screws that contradict each other or the task before anything is measured; raises BadPlan."""
    if settings.probe is not None and settings.name != auto.NAME:
        raise BadPlan(f"probe tries what auto may choose; set name to {auto.NAME} or remove probe")
    if settings.name == auto.NAME:
        auto.check(turned(settings), training, task)
    else:
        refusals.check(get(settings.name).composition.model_copy(update=turned(settings)), training, task)


def mixing_of(settings: StrategySettings) -> MixingSettings | None:
    """The mixing that the user turned or named; None where it is yet to be chosen."""
    if settings.mixing is not None or settings.name == auto.NAME:
        return settings.mixing
    return get(settings.name).composition.mixing


def probe(signals: Signals, settings: StrategySettings) -> Probing | None:
    """The probe to run before the choice; None where none is asked for or one was run. Raises BadPlan."""
    if settings.name != auto.NAME or settings.probe is None or signals.circumstances.probe is not None:
        return None
    return probing.plan(signals, turned(settings), settings.probe)


def alternatives(signals: Signals, settings: StrategySettings) -> list[dict[str, str]]:
    """What was turned down and why; nothing where the user named the strategy."""
    return auto.alternatives(signals, turned(settings)) if settings.name == auto.NAME else []


def get(name: str) -> Named:
    """The named strategy; raises BadPlan where there is none."""
    for one in NAMED:
        if one.name == name:
            return one
    raise BadPlan(f"there is no strategy {name}; choose one of {', '.join(NAMES)}")


def describe() -> list[Json]:
    """Name, summary, sources and composition of every strategy; of the chooser its rules."""
    chooser = {
        "name": auto.NAME,
        "summary": auto.SUMMARY,
        "sources": list(auto.SOURCES),
        "composition": None,
        "rules": auto.rules(),
    }
    return [
        chooser,
        *(
            {
                "name": one.name,
                "summary": one.summary,
                "note": one.note,
                "sources": list(one.sources),
                "composition": one.composition.model_dump(mode="json"),
            }
            for one in NAMED
        ),
    ]


def _usual(name: object) -> Composition:
    found = (one.composition for one in NAMED if one.name == name)
    return next(found, auto.USUAL.composition)


def _with_kind(value: Any, usual: Composition, screw: str) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    return _over(getattr(usual, screw).model_dump(mode="json"), value) if isinstance(value, Mapping) else value


def _over(usual: Json, given: Mapping[str, Any]) -> Json:
    """What is given in place of what is usual; a ``kind`` begins anew."""
    if "kind" in given:
        return dict(given)
    return {**usual, **{key: _inner(usual.get(key), value) for key, value in given.items()}}


def _inner(usual: Any, given: Any) -> Any:
    return _over(usual, given) if isinstance(usual, dict) and isinstance(given, Mapping) else given
