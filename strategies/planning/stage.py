"""One stage of training: what it trains on, what it resolved, and the train jobs made of that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from strategies import selection
from strategies.contract import Explained, Refusal, Signals, SourceFacts, TrainTemplate
from strategies.parts import Consolidation, Mixing, Objective, ReplayMixing, Schedule, Selection
from strategies.planning import common, domains, share
from strategies.planning.domains import Domain
from strategies.settings.composition import SCREWS, Composition
from strategies.settings.consolidation import (
    ConsolidationSettings,
    EmaConsolidation,
    KeepConsolidation,
    MergeConsolidation,
)
from strategies.settings.mixing import ReplaySettings, WeightedSettings
from strategies.words import counted


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Sources and resolved values of a stage; ``values`` is what the plan records."""

    strategy: str
    signals: Signals
    composition: Composition
    selection: Selection
    objective: Objective
    new: tuple[SourceFacts, ...]
    old: tuple[SourceFacts, ...]
    values: dict[str, Explained]
    domains: tuple[Domain, ...] = ()
    """What a weighted mixing mixes."""

    @property
    def steps(self) -> int:
        return int(self.values["steps"].value)

    @property
    def share(self) -> str:
        """Share of old rows as a decimal string."""
        return repr(float(self.values["replay"].value))

    def rate(self, name: str = "learning_rate") -> float:
        return float(self.values[name].value)

    def with_values(self, **values: Explained) -> Stage:
        """The same stage with more values, or other ones."""
        return replace(self, values={**self.values, **values})


def sources_of(signals: Signals, composition: Composition) -> tuple[tuple[SourceFacts, ...], tuple[SourceFacts, ...]]:
    """New and old sources that the mixing draws from."""
    match composition.mixing.kind:
        case "new":
            return signals.new, ()
        case "everything":
            return everything(signals), ()
        case "replay" | "weighted":
            return signals.new, share.replayable(signals)


def everything(signals: Signals) -> tuple[SourceFacts, ...]:
    """The anchor, the trained batches and the new ones."""
    anchor = () if signals.anchor is None else (signals.anchor,)
    return (*anchor, *signals.old, *signals.new)


def resolve_stage(
    signals: Signals,
    composition: Composition,
    *,
    strategy: str,
    new: tuple[SourceFacts, ...],
    old: tuple[SourceFacts, ...],
    rate: Explained,
) -> Stage:
    """Resolve shares, rates and lengths; replay is raised or the rate halved until no refused decision had both."""
    found = domains.find(signals, composition.mixing) if isinstance(composition.mixing, WeightedSettings) else ()
    shares, pinned = _shares(signals, composition, old, found)
    screws = {name: Explained(value=kind, origin=f"strategy {strategy}") for name, kind in _kinds(composition).items()}
    refused = _refused(signals, strategy, _kinds(composition))
    shares["replay"], rate = _differ(refused, replay=shares["replay"], rate=rate, pinned=pinned)
    chosen, drawn = selection.resolve(signals, composition.selection)
    if isinstance(composition.consolidation, MergeConsolidation):
        # The mean of equal numbers may round to another one, and is stored anew.
        drawn.pop("new_bytes_bound", None)
    values = {
        "strategy": Explained(value=strategy, origin=common.SETTINGS),
        **screws,
        **common.common_values(signals, rate),
        **common.cosine_values(signals, common.total_rows(_taught(composition, new, old))),
        **shares,
        **drawn,
    }
    values |= decay(composition.consolidation, int(values["steps"].value))
    return Stage(
        strategy=strategy,
        signals=signals,
        composition=composition,
        selection=chosen,
        objective=common.objective(signals, composition.objective),
        new=new,
        old=old,
        values=values,
        domains=found,
    )


def _taught(
    composition: Composition, new: tuple[SourceFacts, ...], old: tuple[SourceFacts, ...]
) -> tuple[SourceFacts, ...]:
    """Sources whose rows make the stage's length: to the base, old ones are as new as the others."""
    return (*old, *new) if composition.start == "base" else new


def _shares(
    signals: Signals, composition: Composition, old: tuple[SourceFacts, ...], found: tuple[Domain, ...]
) -> tuple[dict[str, Explained], bool]:
    """How much of every step is old, and whether that stays after a refusal."""
    mixing = composition.mixing
    if isinstance(mixing, WeightedSettings) and mixing.first != "replay":
        first = domains.weights(found, mixing, replay=0.0)
        value = float(sum(first[domain.name] for domain in found if not domain.new))
        return {"replay": Explained(value=value, origin="the first weights of old domains")}, True
    asked = mixing.share if isinstance(mixing, ReplaySettings) else None
    shares = share.resolve_share(signals, asked, old=old)
    if isinstance(mixing, WeightedSettings) and mixing.reweight.kind != "none" and old:
        shares["replay"] = _with_room(shares["replay"])
    return shares, not old or asked is not None


def _with_room(replay: Explained) -> Explained:
    """Weights that begin at their floor could not follow anything."""
    if replay.value >= share.STRONG:
        return replay
    return Explained(value=share.STRONG, origin=f"the least that re-weighting starts from; {replay.origin}")


def _kinds(composition: Composition) -> dict[str, str]:
    return {"start": composition.start, **{screw: getattr(composition, screw).kind for screw in SCREWS}}


def _refused(signals: Signals, strategy: str, kinds: dict[str, str]) -> list[Refusal]:
    """Decisions on the same batches that the gate refused and that were composed alike."""
    alike = {"strategy": strategy, **kinds}
    return [one for one in signals.refused if all(getattr(one, key) in (None, value) for key, value in alike.items())]


def _differ(refused: list[Refusal], *, replay: Explained, rate: Explained, pinned: bool) -> tuple[Explained, Explained]:
    stronger, lower = float(replay.value), float(rate.value)
    before = [(stronger if one.replay is None else one.replay, one.learning_rate) for one in refused]
    while (stronger, lower) in before:
        notch = None if pinned else share.next_notch(stronger)
        stronger, lower = (stronger, lower / 2) if notch is None else (notch, lower)
    return (
        _changed(replay, stronger, "raised after refusal"),
        _changed(rate, lower, "halved after refusal"),
    )


def _changed(before: Explained, value: float, how: str) -> Explained:
    if value == before.value:
        return before
    return Explained(value=value, origin=f"{how}, from {before.value:g} ({before.origin})")


def train_job(
    stage: Stage,
    schedule: Schedule,
    mixing: Mixing,
    *,
    init: str,
    steps: int,
    optimizer: str | None = None,
    state: tuple[str, ...] = (),
) -> TrainTemplate:
    """One run of the loop over the rows that ``mixing`` draws."""
    signals = stage.signals
    return TrainTemplate(
        init=init,
        optimizer=optimizer,
        mixing=mixing,
        selection=stage.selection,
        schedule=schedule,
        objective=stage.objective,
        consolidation=_consolidation(stage),
        steps=steps,
        training=signals.training,
        state=state,
    )


def replay(stage: Stage, *, cursor: str | None) -> ReplayMixing:
    """The stage's old sources in place of its share of the new ones."""
    return ReplayMixing(
        new=common.names(stage.new),
        old=share.weights(stage.old, stage.signals.anchor),
        share=stage.share,
        batch=stage.signals.training.train_batch_size,
        order=stage.values["order"].value,
        cursor=cursor,
    )


def _consolidation(stage: Stage) -> Consolidation:
    """With the decay by value: it means nothing without the stage's length. A merge is a job of its own."""
    settings = stage.composition.consolidation
    if isinstance(settings, MergeConsolidation):
        return KeepConsolidation()
    if isinstance(settings, EmaConsolidation):
        return settings.model_copy(update={"decay": stage.values["decay"].value})
    return settings


def decay(consolidation: ConsolidationSettings, steps: int) -> dict[str, Explained]:
    """The decay of an average over ``steps`` steps; nothing where there is none."""
    if not isinstance(consolidation, EmaConsolidation):
        return {}
    given = consolidation.decay is not None
    horizon = f"horizon of {counted(consolidation.horizon, 'stage')} of {counted(steps, 'step')}"
    origin = common.SETTINGS if given else horizon
    return {"decay": Explained(value=consolidation.decay_over(steps), origin=origin)}


def grows(signals: Signals) -> bool:
    """Whether classes come that the live version's head, and so its optimizer, has no rows for."""
    return signals.task == "classification" and len(signals.labels) > len(signals.parent_labels)


def parents_cursor(signals: Signals) -> str | None:
    """Where the parent's sources stood, if it left that."""
    return "@live/state/mixing" if "state/mixing" in signals.parent_state else None


def in_words(stage: Stage) -> str:
    """What the stage trains on, what of the model moves and what becomes of it, as the end of a sentence."""
    averaged = ", averaged over its steps" if stage.composition.consolidation.kind == "ema" else ""
    return _mixing_in_words(stage) + selection.in_words(stage.selection, stage.values) + averaged


def _mixing_in_words(stage: Stage) -> str:
    if stage.composition.mixing.kind == "new":
        return "on the new data alone"
    if stage.composition.mixing.kind == "everything":
        rows = counted(stage.values["rows"].value, "row")
        return f"on {counted(len(stage.new), 'source')} jointly, {rows} in all"
    if isinstance(stage.composition.mixing, WeightedSettings):
        return _domains_in_words(stage, stage.composition.mixing)
    if not stage.old:
        return "without replay, because there is nothing to replay"
    replay = stage.values["replay"]
    return f"with {replay.value:.0%} replay of {counted(len(stage.old), 'old source')} in every step ({replay.origin})"


def _domains_in_words(stage: Stage, mixing: WeightedSettings) -> str:
    kind, count = mixing.reweight.kind, len(stage.domains)
    first = "given weights" if isinstance(mixing.first, dict) else f"{mixing.first} weights"
    after = "" if kind == "none" or count == 1 else f", re-weighted by {kind}"
    old = f"{stage.values['replay'].value:.0%} of old data ({stage.values['replay'].origin})"
    return f"over {counted(count, 'domain')} with {first}{after}, first with {old}"
