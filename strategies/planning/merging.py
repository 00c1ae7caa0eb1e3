"""The merge that a stage may end with: siblings in place of its train job, and one more job that joins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strategies.contract import Explained, MergeTemplate, Plan, Template, TrainTemplate
from strategies.contract.graph import ADAPTER, MODEL, START, parse_reference
from strategies.errors import BadPlan
from strategies.planning import common
from strategies.planning.mixing import MAIN
from strategies.planning.stage import Stage, everything
from strategies.settings.consolidation import MergeConsolidation
from strategies.settings.merging import combining
from strategies.words import counted

MERGE = "merge"
APART = 1000
"""What is added to the order of rows from one sibling to the next: more than a stream's stages add."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A stage's jobs, the one whose answer is the version, and what is told of the last of them."""

    jobs: Mapping[str, Template]
    result: str
    values: dict[str, Explained] = field(default_factory=dict)
    in_words: str = ""


def planned(stage: Stage, jobs: Mapping[str, Template], *, reason: str, last: str = MAIN) -> Plan:
    """The stage's plan, with the merge that it may end with; ``reason`` is a sentence without its full stop."""
    ended = _with_last_step(stage, jobs, last=last)
    return Plan(
        strategy=stage.strategy,
        jobs=ended.jobs,
        result=ended.result,
        reason=f"{reason}{ended.in_words}.",
        values={**stage.values, **ended.values},
    )


def _with_last_step(stage: Stage, jobs: Mapping[str, Template], *, last: str) -> Ended:
    """The jobs as they are, or with siblings in place of the ``last`` train job and their merge."""
    settings, main = stage.composition.consolidation, jobs[last]
    if not isinstance(settings, MergeConsolidation) or not isinstance(main, TrainTemplate):
        return Ended(jobs=jobs, result=last)
    trained = {f"{last}-{at + 1}": _sibling(main, at) for at in range(settings.count)}
    before = {name: job for name, job in jobs.items() if name != last}
    origin = common.DEFAULT if settings.siblings is None else common.SETTINGS
    count = settings.count
    return Ended(
        jobs={**before, **trained, MERGE: _merge(stage, settings, main, tuple(trained))},
        result=MERGE,
        values={
            "siblings": Explained(value=count, origin=origin),
            "merge": Explained(value=settings.method.kind, origin=common.SETTINGS),
        },
        in_words=f", then merges {counted(count, 'sibling')} by {settings.method.kind}",
    )


def _sibling(main: TrainTemplate, at: int) -> TrainTemplate:
    """The train job, or one like it whose rows come in another order; the first alone leaves state for later stages."""
    if at == 0:
        return main
    mixing = main.mixing.model_copy(update={"order": main.mixing.order + APART * at})
    return main.model_copy(update={"mixing": mixing, "state": ()})


def _merge(stage: Stage, settings: MergeConsolidation, main: TrainTemplate, trained: tuple[str, ...]) -> MergeTemplate:
    inner = combining(settings.method).kind
    role = MODEL if main.selection.lora is None else ADAPTER
    start = _start(main, role)
    members = {name: f"@{name}/{role}" for name in trained}
    if len(trained) == 1 and settings.method.mean:
        _check_start(stage, main)
        members[START] = start
    keeps_adapter = role == ADAPTER and START not in members and inner not in ("fisher", "greedy-soup")
    return MergeTemplate(
        init=start,
        members=members,
        method=settings.method,
        into="adapter" if keeps_adapter else "model",
        rows=_rows(stage, members) if inner == "fisher" else {},
        sets=_sets(stage) if inner == "greedy-soup" else (),
        training=main.training,
    )


def _start(main: TrainTemplate, role: str) -> str:
    """What training starts from: a version, or what an earlier job of the plan answers with."""
    start = parse_reference(main.init)
    return f"@{start.of}/{role}" if start.is_job else main.init


def _check_start(stage: Stage, main: TrainTemplate) -> None:
    """A head that was never taught its classes has no part in a mean."""
    taught = parse_reference(main.init).is_job or (stage.composition.start == "live" and stage.signals.parent_labels)
    if stage.signals.task == "classification" and not taught:
        raise BadPlan("the one sibling would be averaged with a start that knows no classes yet; set siblings to 2")


def _rows(stage: Stage, members: Mapping[str, str]) -> dict[str, str]:
    """Rows that each one knows: of the stage's newest batch; of the start, what it was trained on before."""
    signals = stage.signals
    known = () if stage.composition.start == "base" else signals.old[::-1]
    before = [one for one in (*known, signals.anchor) if one is not None and one.rows]
    if START in members and not before:
        raise BadPlan("there is no earlier batch to estimate the start's Fisher information from; set siblings to 2")
    return {role: before[0].name if role == START else signals.new[-1].name for role in members}


def _sets(stage: Stage) -> tuple[str, ...]:
    own = [one.eval_set for one in everything(stage.signals) if one.eval_set is not None]
    found = tuple(dict.fromkeys([*own, *stage.signals.pools]))
    if not found:
        raise BadPlan("greedy-soup chooses by eval sets, and the stream has none; choose soup")
    return found
