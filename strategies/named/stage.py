"""One stage of training with replay: what it trains on, what it resolved, and the train jobs made of that."""

from __future__ import annotations

from dataclasses import dataclass

from strategies import selection
from strategies.contract import Explained, ReplayMixing, Schedule, Signals, SourceFacts, TrainTemplate
from strategies.named import resolve, share
from strategies.settings import StrategySettings

STRATEGY = "rewarm-replay"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Sources and resolved values of a stage; ``values`` is what the plan records."""

    signals: Signals
    settings: StrategySettings
    new: tuple[SourceFacts, ...]
    old: tuple[SourceFacts, ...]
    values: dict[str, Explained]

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
        return Stage(
            signals=self.signals, settings=self.settings, new=self.new, old=self.old, values={**self.values, **values}
        )


def resolve_stage(
    signals: Signals,
    settings: StrategySettings,
    *,
    new: tuple[SourceFacts, ...],
    old: tuple[SourceFacts, ...],
    rate: Explained,
) -> Stage:
    """Resolve shares, rates and lengths; replay is raised or the rate halved until no refused decision had both."""
    shares = share.resolve_share(signals, settings, anything_old=bool(old))
    pinned = not old or settings.replay is not None
    shares["replay"], rate = _differ(signals, settings, replay=shares["replay"], rate=rate, pinned=pinned)
    values = {
        "strategy": Explained(value=STRATEGY, origin=resolve.SETTINGS),
        **resolve.common_values(signals, rate),
        "schedule": Explained(value=settings.schedule, origin=resolve.SETTINGS),
        **resolve.cosine_values(signals, resolve.total_rows(new)),
        **shares,
    }
    return Stage(signals=signals, settings=settings, new=new, old=old, values=values)


def _differ(
    signals: Signals, settings: StrategySettings, *, replay: Explained, rate: Explained, pinned: bool
) -> tuple[Explained, Explained]:
    refused = [
        (earlier.get("replay"), earlier.get("learning_rate"))
        for earlier in resolve.refusals(signals, STRATEGY)
        if earlier.get("schedule", settings.schedule) == settings.schedule
    ]
    stronger, lower = float(replay.value), float(rate.value)
    while (stronger, lower) in refused:
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
    *,
    init: str,
    steps: int,
    optimizer: str | None = None,
    cursor: str | None = None,
    state: tuple[str, ...] = (),
) -> TrainTemplate:
    """One run of the loop over the stage's sources."""
    signals = stage.signals
    weights = share.weights(stage.old, signals.anchor)
    mixing = ReplayMixing(
        new=resolve.names(stage.new),
        old=weights,
        share=stage.share,
        batch=signals.training.train_batch_size,
        order=stage.values["order"].value,
        cursor=cursor,
    )
    return TrainTemplate(
        init=init,
        optimizer=optimizer,
        mixing=mixing,
        selection=selection.from_training(signals.training),
        schedule=schedule,
        objective=resolve.objective(signals),
        steps=steps,
        training=signals.training,
        state=state,
    )


def parents_cursor(signals: Signals) -> str | None:
    """Where the parent's sources stood, if it left that."""
    return "@live/state/mixing" if "state/mixing" in signals.parent_state else None


def in_words(stage: Stage) -> str:
    """The stage's replay as the end of a sentence."""
    replay = stage.values["replay"]
    if not stage.old:
        return "without replay, because there is nothing to replay"
    count = f"{len(stage.old)} old source{'s' if len(stage.old) > 1 else ''}"
    return f"with {replay.value:.0%} replay of {count} in every step ({replay.origin})"
