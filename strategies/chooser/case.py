"""The case that auto decides: the signals under the screws that the user turned, and what its rules ask of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from strategies.chooser.candidates import INFINITE, candidates
from strategies.contract import Signals, SourceFacts
from strategies.errors import BadPlan
from strategies.planning import common, share
from strategies.planning.stage import everything
from strategies.settings import Json
from strategies.settings.mixing import ReplaySettings
from strategies.words import counted


@dataclass(frozen=True, kw_only=True)
class Case:
    """Signals, and the screws that hold whatever is chosen."""

    signals: Signals
    turned: Json = field(default_factory=dict)

    @property
    def old(self) -> tuple[SourceFacts, ...]:
        """What may be replayed, the anchor first."""
        return share.replayable(self.signals)

    @property
    def new_rows(self) -> int:
        return common.total_rows(self.signals.new)

    @property
    def old_rows(self) -> int:
        """With the anchor's."""
        return common.total_rows(everything(self.signals)) - self.new_rows

    @property
    def share(self) -> float:
        """Share of replay that is asked for: by the settings, else by what was measured."""
        mixing = self.turned.get("mixing")
        asked = mixing.share if isinstance(mixing, ReplaySettings) else None
        return float(share.resolve_share(self.signals, asked, old=self.old)["replay"].value)

    @property
    def replayed(self) -> float:
        """Share of replay that the live version was trained with."""
        return self.signals.parent_settings.replay or 0.0

    @cached_property
    def on_a_trunk(self) -> Json:
        """What a stage on a trunk would resolve; nothing where there can be none."""
        try:
            planned = candidates()[INFINITE].plan(self.signals, self.turned).values
        except BadPlan:
            return {}
        return {name: one.value for name, one in planned.items()}

    @property
    def goes_on(self) -> bool:
        """Whether a stage on a trunk would go on with the live version's."""
        return self.on_a_trunk.get("trunk") == "resumed"

    @property
    def steps(self) -> int:
        """Of a stage on a trunk, which takes up what only the last release saw; else of the new rows alone."""
        if not self.new_rows:
            return 0
        return int(self.on_a_trunk.get("steps") or common.steps(self.signals.training, self.new_rows).value)

    def over_budget(self, rows: float) -> str | None:
        """How long a job of ``rows`` rows takes, if that is more than it may; where no speed is known, that."""
        around, sources = self.signals.circumstances, everything(self.signals)
        have = common.total_rows(sources)
        if not around.max_hours or not have:
            return None
        if not around.tokens_per_s:
            return f", speed unknown against {around.max_hours:g} h allowed"
        hours = sum(one.tokens for one in sources) * rows / have / around.tokens_per_s / 3600
        return f", {hours:.1f} h of {around.max_hours:g} h allowed" if hours > around.max_hours else None

    @property
    def steps_on_all(self) -> int:
        """Of a job that trains on everything."""
        rows = self.new_rows + self.old_rows
        return int(common.steps(self.signals.training, rows).value) if rows else 0

    @property
    def retrain_over_budget(self) -> str | None:
        """As :meth:`over_budget`, of training on everything."""
        return self.over_budget(self.steps_on_all * self.signals.training.train_batch_size)

    @property
    def overrun(self) -> str | None:
        """By how much a retrain is known to overrun the budget; nothing is known before a speed was measured."""
        return self.retrain_over_budget if self.signals.circumstances.tokens_per_s else None


def new_domains(signals: Signals) -> tuple[str, ...]:
    """New batches whose loss under the live model is above that of every known source by a strong shift."""
    known = [one.loss for one in share.replayable(signals) if one.loss is not None]
    if not known or signals.task == "classification":
        return ()
    limit = max(known) * (1 + share.STRONG_FROM)
    return tuple(one.name for one in signals.new if one.loss is not None and one.loss > limit)


def batches(count: int) -> str:
    """So many earlier batches."""
    return counted(count, "earlier batch", many="earlier batches")
