"""How much to replay, and of what, when the user does not say."""

from __future__ import annotations

from collections.abc import Iterable

from strategies.contract import Explained, Signals, SourceFacts
from strategies.words import counted

NOTCHES = (0.05, 0.10, 0.25, 0.5)
"""Shares of replay from weakest to strongest (METHODS 1.5)."""
STRONG = 0.25
"""The share for a strong shift; where it was not enough, auto asks for something else than replay alone."""
STRONG_FROM = 0.15
"""Relative shift from which on it is strong; a batch further than that from every known source is a new domain."""
SHIFTS = ((0.05, 0.05), (STRONG_FROM, 0.10))
"""(relative shift below which, share); :data:`STRONG` above. The borders are this project's own defaults."""

NOTHING, NOT_REPLAYED = "there is nothing to replay", "the mixing puts no old rows in place of new ones"
"""Why nothing is replayed: there is nothing, or it is not asked for."""


def replayable(signals: Signals) -> tuple[SourceFacts, ...]:
    """Old sources that have rows, the anchor first."""
    anchor = () if signals.anchor is None else (signals.anchor,)
    return tuple(source for source in (*anchor, *signals.old) if source.rows)


def weights(sources: Iterable[SourceFacts], anchor: SourceFacts | None) -> dict[str, str]:
    """Each old source weighs as many rows as were seen of it; the anchor all its rows, for the base knew them."""
    seen = {source.name: source.rows if source is anchor else source.seen_rows or source.rows for source in sources}
    return {name: str(rows) for name, rows in seen.items()}


def shift(signals: Signals) -> Explained | None:
    """(loss on new data - loss on the anchor) / loss on the anchor; without an anchor, old batches stand for it."""
    new = mean_loss(signals.new)
    reference, what = mean_loss([signals.anchor] if signals.anchor else []), "anchor"
    if reference is None:
        reference, what = mean_loss(signals.old), "old batches"
    if new is None or not reference:
        return None
    return Explained(value=(new - reference) / reference, origin=f"measured: new {new:.4g}, {what} {reference:.4g}")


def mean_loss(sources: Iterable[SourceFacts]) -> float | None:
    """Mean loss a token over all sources that were measured; None if none was."""
    measured = [(source.loss, source.tokens) for source in sources if source.loss is not None and source.tokens]
    tokens = sum(count for _, count in measured)
    return sum(loss * count for loss, count in measured) / tokens if tokens else None


def resolve_share(signals: Signals, asked: float | None, *, old: tuple[SourceFacts, ...]) -> dict[str, Explained]:
    """Values ``replay`` and, where they were looked at, ``shift``, ``replay_raise`` and ``anchor_rise``."""
    if not old:
        return {"replay": Explained(value=0.0, origin=NOT_REPLAYED if replayable(signals) else NOTHING)}
    if asked is not None:
        return {"replay": Explained(value=asked, origin="settings")}
    measured = shift(signals)
    values = _raise_values(signals)
    raised = values["replay_raise"].value
    share = NOTCHES[min(NOTCHES.index(share_for(measured)) + raised, len(NOTCHES) - 1)]
    origin = "default: nothing was measured" if measured is None else f"measured shift {measured.value:.2f}"
    if raised:
        origin += f", raised {counted(raised, 'notch', many='notches')} because the anchor's loss has risen"
    found = {} if measured is None else {"shift": measured}
    return {"replay": Explained(value=share, origin=origin), **found, **values}


def share_for(measured: Explained | None) -> float:
    """The share for a relative shift: the literature's shares (METHODS 1.5) at borders of this project's own."""
    if measured is None:
        return NOTCHES[0]
    return next((share for below, share in SHIFTS if measured.value < below), STRONG)


def _raise_values(signals: Signals) -> dict[str, Explained]:
    """One notch once the anchor has used half its tolerance, one more each time it has still risen since."""
    rise = signals.anchor_rise
    if rise is None:
        return {"replay_raise": Explained(value=0, origin="no rise of an anchor's loss was measured")}
    if rise <= signals.anchor_tolerance / 2:
        return {"replay_raise": Explained(value=0, origin="the anchor's loss is within half its tolerance")}
    before = signals.parent_settings.replay_raise
    risen = rise > signals.parent_settings.anchor_rise
    notches = min(before + 1 if risen or not before else before, len(NOTCHES) - 1)
    return {
        "replay_raise": Explained(value=notches, origin=f"the anchor's loss has risen by {rise:.1%}"),
        "anchor_rise": Explained(value=rise, origin="measured"),
    }


def next_notch(share: float) -> float | None:
    """The next stronger share; None at the top."""
    return next((notch for notch in NOTCHES if notch > share), None)
