"""What may be combined with what: a composition that makes no sense is refused with the reason."""

from __future__ import annotations

from strategies.contract import Signals
from strategies.contract.graph import ADAPTER, BANK
from strategies.contract.regmix import LEAST_RUNS
from strategies.errors import BadPlan
from strategies.planning.domains import NEW, TOLERANCE, check_names
from strategies.planning.reweighting import method_of
from strategies.settings import Closed, Task, TrainingSettings
from strategies.settings.composition import Composition
from strategies.settings.consolidation import LEAST_PROMPTS, TaskMeanConsolidation
from strategies.settings.mixing import AgentMixSettings, MixingSettings, SkillItSettings, WeightedSettings
from strategies.settings.objective import LocalObjective
from strategies.settings.schedule import InfiniteSettings
from strategies.settings.selection import AdapterSettings
from strategies.words import counted

LABELS_SHOWN = 5


def check(composition: Composition, training: TrainingSettings, task: Task) -> None:
    """Refuse screws that contradict each other, the training settings or the task."""
    if composition.start == "base":
        _check_base(composition)
    if isinstance(composition.schedule, InfiniteSettings):
        _check_infinite(composition, composition.schedule, training)
    if composition.selection.kind == "adapter":
        _check_bank(composition)
    elif composition.consolidation.kind == "task-mean":
        raise BadPlan("task-mean is for adapters; set selection.kind to adapter or consolidation.kind to keep")
    elif composition.objective.kind == "local":
        raise BadPlan("local is for adapters; set selection.kind to adapter or objective.kind to task")
    if composition.consolidation.kind in ("ema", "merge"):
        _check_averaged(composition)
    if composition.selection.kind == "half" and composition.keep_optimizer:
        raise BadPlan("half draws anew what moves, so every stage needs a new optimizer; remove keep_optimizer")
    if isinstance(composition.mixing, WeightedSettings):
        _check_weighted(composition.mixing)
    _check_task(composition, task)


def _check_task(composition: Composition, task: Task) -> None:
    """Refuse what another task alone would heed: it would be ignored, or fail in every decision."""
    if task == "classification":
        _check_has_classes(composition.mixing)
        merging = composition.consolidation
        unused = _turned(merging.router, {"rounds"}) if isinstance(merging, TaskMeanConsolidation) else []
        if unused:
            raise BadPlan(f"classes are routed by their head, without router.{unused[0]}; remove it")
        return
    for name, part, shared in _of_classes(composition):
        unused = _turned(part, shared)
        if unused:
            raise BadPlan(f"{name}.{unused[0]} is about classes, which {task} does not have; remove it")


def _check_has_classes(mixing: MixingSettings) -> None:
    """Refuse re-weightings that only language models can have, the search for an agent's guard among them."""
    if not isinstance(mixing, WeightedSettings):
        return
    settings = mixing.search or mixing.reweight
    if why := method_of(settings).needs_tokens:
        raise BadPlan(f"{settings.kind} {why}; choose skill-it for classification")


def _of_classes(composition: Composition) -> list[tuple[str, Closed, set[str]]]:
    """Parts of a bank's composition with settings about classes, and their other settings."""
    merging, selection, objective = composition.consolidation, composition.selection, composition.objective
    found: list[tuple[str, Closed, set[str]]] = []
    if isinstance(merging, TaskMeanConsolidation) and merging.align is not None:
        found.append(("consolidation", merging, set(TaskMeanConsolidation.model_fields) - {"align"}))
    if isinstance(selection, AdapterSettings):
        found.append(("selection", selection, set()))
    if isinstance(objective, LocalObjective):
        found.append(("objective", objective, set()))
    return found


def _turned(settings: Closed, shared: set[str]) -> list[str]:
    """Fields that are not as they come, but for the ``shared`` ones."""
    usual = type(settings)()
    return [
        name
        for name in type(settings).model_fields
        if name not in shared and getattr(settings, name) != getattr(usual, name)
    ]


def _check_weighted(mixing: WeightedSettings) -> None:
    _check_unused(mixing)
    check_names(mixing)
    reweight, given, search = mixing.reweight, mixing.weights, mixing.search
    if search is not None and search.runs < LEAST_RUNS:
        where = "runs" if search is reweight else "regmix.runs"
        raise BadPlan(
            f"{search.runs} tiny runs are too few to fit; set mixing.reweight.{where} to {LEAST_RUNS} or more"
        )
    if isinstance(given, dict) and (min(given.values(), default=0) < 0 or sum(given.values()) > 1 + TOLERANCE):
        raise BadPlan("mixing.weights cannot be negative or sum to more than 1; domains left out share what remains")
    if given != "replay" and reweight.kind == "regmix":
        raise BadPlan("regmix finds the weights by itself; remove mixing.weights")
    if isinstance(given, dict) and method_of(reweight).from_first and _gives_all(given):
        raise BadPlan(
            f"mixing.weights leaves every domain but {', '.join(_weighed(given))} a first weight of 0, and"
            f" {reweight.kind} goes on from the first weights; leave the others some, or set mixing.reweight to none"
        )
    if isinstance(reweight, SkillItSettings) and reweight.graph is not None:
        _check_graph(reweight.graph)


def _check_unused(mixing: WeightedSettings) -> None:
    """Refuse what another choice alone would heed."""
    if mixing.domains.by != "clusters" and _turned(mixing.domains, {"by"}):
        raise BadPlan(
            f"mixing.domains.clusters is used when by is clusters, not {mixing.domains.by}; remove it, or set"
            " mixing.domains.by to clusters"
        )
    agent = mixing.reweight if isinstance(mixing.reweight, AgentMixSettings) else None
    unused = _turned(agent, {"folder"}) if agent is not None and agent.folder is None else []
    if unused:
        raise BadPlan(f"mixing.reweight.{unused[0]} is about the guard of an agent; give mixing.reweight.folder too")


def _gives_all(weights: dict[str, float]) -> bool:
    """Whether new data alone, or a single domain, is given all weight."""
    weighed = _weighed(weights)
    of_new = all(name == NEW or name.startswith(f"{NEW}/") for name in weighed)
    return sum(weights.values()) >= 1 - TOLERANCE and (of_new or len(weighed) == 1)


def _weighed(weights: dict[str, float]) -> tuple[str, ...]:
    return tuple(name for name, weight in weights.items() if weight > 0)


def _check_graph(graph: dict[str, dict[str, float]]) -> None:
    for name, row in graph.items():
        for to, edge in row.items():
            if edge < 0:
                raise BadPlan(
                    f"mixing.reweight.graph has {edge:g} from {name} to {to}: a domain helps another or does not, so"
                    " edges are 0 or more"
                )


def check_parent(composition: Composition, signals: Signals) -> None:
    """Refuse what the live version cannot be gone on from, with what to do instead."""
    is_bank, adapts = BANK in signals.parent_answer, composition.selection.kind == "adapter"
    if composition.start == "base":
        if adapts:
            _check_taught(signals)
        return
    if adapts and signals.task != "classification":
        _check_enough(signals)
    if is_bank and not adapts:
        raise BadPlan(
            "the live version is a bank of adapters, which goes on with an adapter a stage only; choose strategy mos,"
            " or retrain, which starts from the base"
        )
    if not adapts or is_bank:
        return
    if ADAPTER in signals.parent_answer:
        raise BadPlan("a bank cannot start on a model with an adapter; roll back to a version without one, or rebase")
    if signals.parent_labels:
        raise BadPlan(
            f"the live version tells {_listed(signals.parent_labels)} apart by a head of its own, which a bank cannot"
            " take over; begin one at the base (start base, mixing everything), or roll back to a version that knows"
            " no classes"
        )


def _check_enough(signals: Signals) -> None:
    prompts = sum(max(one.documents, one.rows) for one in signals.new)
    if prompts < LEAST_PROMPTS:
        raise BadPlan(
            f"{counted(prompts, 'new row')} cannot be told from other domains by a router, which needs"
            f" {LEAST_PROMPTS} at least; wait for more data"
        )


def _check_taught(signals: Signals) -> None:
    untaught = tuple(sorted(set(signals.labels) - set(signals.taught_labels)))
    if untaught:
        raise BadPlan(
            f"a bank that is begun at the base would not know {_listed(untaught)}: no document of the stream has it;"
            " go on from the live version"
        )


def _listed(labels: tuple[str, ...]) -> str:
    """The first labels, and how many more there are."""
    shown = ", ".join(labels[:LABELS_SHOWN])
    more = len(labels) - LABELS_SHOWN
    return f"{shown} and {more} more classes" if more > 0 else shown


def _check_bank(composition: Composition) -> None:
    """A bank's stage: a fresh adapter on a frozen base, at rates that end; the first one may be taught everything."""
    if composition.consolidation.kind != "task-mean":
        raise BadPlan("an adapter a stage makes a bank; set consolidation.kind to task-mean or selection.kind to all")
    if composition.start == "live" and composition.mixing.kind != "new":
        raise BadPlan("an adapter answers for the rows it was trained on; set mixing.kind to new")
    if composition.schedule.kind == "infinite":
        raise BadPlan("the infinite schedule goes on with one trunk, but every adapter is a new one; choose cosine")
    if composition.keep_optimizer:
        raise BadPlan("every adapter is a new one and has no moments; remove keep_optimizer")
    reweight = composition.mixing.reweight if isinstance(composition.mixing, WeightedSettings) else None
    if reweight is not None and (why := method_of(reweight).takes_models):
        raise BadPlan(f"{reweight.kind}'s {why}; choose skill-it or regmix")
    merging = composition.consolidation
    if merging.space == "delta" and merging.merge_every == "step":
        raise BadPlan("products averaged after every step would reset the optimizer; set merge_every to epoch or task")


def _check_base(composition: Composition) -> None:
    mixing = composition.mixing
    if isinstance(mixing, WeightedSettings) and mixing.first == "replay":
        raise BadPlan(
            "replay's weights are for what the live version knows already, but the base knows none of it; set"
            " mixing.weights to prior, uniform or weights by domain"
        )
    if mixing.kind not in ("everything", "weighted"):
        raise BadPlan("from the base, what came since would be lost; set mixing.kind to everything or start to live")
    if isinstance(composition.schedule, InfiniteSettings):
        raise BadPlan("the infinite schedule goes on from the live version's trunk; set start to live")
    if composition.schedule.warmup_start == "last_lr":
        raise BadPlan("last_lr is the live version's last rate, which the base never had; set warmup_start to zero")
    if composition.keep_optimizer:
        raise BadPlan("the base has no optimizer moments; remove keep_optimizer or set start to live")


def _check_averaged(composition: Composition) -> None:
    """Moments do not go on from weights that no step led to."""
    what = "an average" if composition.consolidation.kind == "ema" else "a merge"
    if composition.keep_optimizer:
        raise BadPlan(f"the moments belong to the last weights, not to {what}; remove keep_optimizer or choose keep")


def _check_infinite(composition: Composition, schedule: InfiniteSettings, training: TrainingSettings) -> None:
    if composition.mixing.kind == "everything":
        raise BadPlan("the infinite schedule's trunk has seen the old rows; set mixing.kind to replay")
    if composition.selection.kind == "half":
        raise BadPlan("the infinite schedule continues its trunk's optimizer, but half needs a new one; choose cosine")
    if composition.keep_optimizer:
        raise BadPlan("the infinite schedule always continues its trunk's optimizer; remove keep_optimizer")
    if training.min_learning_rate_ratio == 0:
        raise BadPlan("the infinite schedule anneals exponentially and cannot reach 0; raise min_learning_rate_ratio")
    if schedule.constant_ratio < training.min_learning_rate_ratio:
        raise BadPlan("schedule.constant_ratio is below min_learning_rate_ratio; the anneal would raise the rate")
