"""Compute-equivalent replay (Ibrahim et al. 2024): an exact, deterministic, resumable sampler.

After n steps of B rows exactly floor(share * B * n) rows were old; replay takes the place of new rows and never adds
steps. Old rows go to the old source that lags its weight most, so the sources' counts always add up to the old total.
New sources are one stream, ordered by hash over all their rows, epoch after epoch. All shares are rational numbers.
Where rows differ in length, shares and weights are of their tokens: each row of a step comes from what is most behind.
A source may be old and, for some of its rows, new: those are set aside before replay goes on behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.errors import BadPlan, BadState
from strategies.mixing.cursor import FORMAT, SET_ASIDE, Cursor, checkpointed, continued, read_cursors
from strategies.mixing.exact import fraction
from strategies.mixing.order import permuted
from strategies.mixing.stream import Stream
from strategies.parts import ReplayMixing
from strategies.settings import Json

Lengths = NDArray[np.integer[Any]]
Row = tuple[str, int]


def old_rows(share: str, batch: int, steps: int) -> int:
    """Old rows among the first ``steps`` steps of ``batch`` rows: floor(share * batch * steps)."""
    exact = fraction(share, "share")
    return exact.numerator * batch * steps // exact.denominator


class ReplayMixer:
    """Draws the rows of each optimizer step from ``rows`` (source -> number of rows), as ``mixing`` says.

    ``state`` is the mixing state of an earlier stage (any :meth:`state_dict`): each source goes on where it stood, a
    new source with the rows it has left. A source whose number of rows has changed begins a new epoch. ``tokens`` has
    the length of every row of each source where shares are to be of tokens.
    """

    def __init__(
        self,
        mixing: ReplayMixing,
        rows: Mapping[str, int],
        state: Json | None = None,
        *,
        tokens: Mapping[str, Lengths] | None = None,
    ) -> None:
        self.mixing = mixing
        self._share = fraction(mixing.share, "share")
        _check(mixing, rows, self._share)
        self._weights = _integer_weights(mixing.old, rows)
        self._settings = _settings(mixing)
        self._rows = {name: rows[name] for name in (*mixing.new, *mixing.old)}
        self._cursors = read_cursors(state)
        self._step = 0
        self._tokens = tokens
        self._taken = 0
        self._drawn = dict.fromkeys(self._weights, 0)
        for name, count in self._rows.items():
            self._cursors[name] = continued(self._cursors.get(name), name, rows=count, order=mixing.order)
        for name in mixing.new:
            self._cursors[name].cut(mixing.order)
        self._aside = {name: self._set_aside(name, state) for name in mixing.most if name in mixing.old}
        self._open_streams()

    @property
    def step(self) -> int:
        """Optimizer steps drawn so far."""
        return self._step

    def draw(self, step: int) -> list[Row]:
        """Source and row of every row of optimizer step ``step``; steps are drawn in turn, from 1."""
        if step != self._step + 1:
            raise BadState(f"step {step} was asked for but step {self._step + 1} is next; steps are drawn in turn")
        drawn = self._by_rows(step) if self._tokens is None else self._by_tokens(self._tokens)
        self._step = step
        slots = permuted(np.arange(self.mixing.batch, dtype=np.int64), self.mixing.order, "batch", step)
        return [drawn[slot] for slot in slots.tolist()]

    def state_dict(self) -> Json:
        """Everything the next draw depends on, as JSON; sources of earlier stages keep their cursors."""
        return {
            "format": FORMAT,
            "kind": self.mixing.kind,
            "settings": self._settings,
            "step": self._step,
            "taken": self._taken,
            "drawn": dict(self._drawn),
            "sources": {name: cursor.to_json() for name, cursor in self._cursors.items()},
            SET_ASIDE: {name: cursor.to_json() for name, cursor in self._aside.items()},
        }

    def load_state_dict(self, state: Json) -> None:
        """Go on within the same job: the next draw is the one that would have followed ``state``."""
        self._cursors = checkpointed(state, self._settings, self._rows)
        self._aside = read_cursors(state, SET_ASIDE)
        self._step, self._taken = int(state["step"]), int(state.get("taken", 0))
        self._drawn = {name: int(count) for name, count in state["drawn"].items()}
        self._open_streams()

    def _by_rows(self, step: int) -> list[Row]:
        old = self._old_total(step) - self._old_total(self._step)
        return [self._draw_old() for _ in range(old)] + self._new.take(self.mixing.batch - old)

    def _by_tokens(self, tokens: Mapping[str, Lengths]) -> list[Row]:
        """The ledger of METHODS 1.4: a row is old where the quota of old tokens is not used up."""
        old: list[Row] = []
        new: list[Row] = []
        for _ in range(self.mixing.batch):
            is_due = sum(self._drawn.values()) + 1 <= self._share * (self._taken + 1)
            drawn = self._draw_old(tokens) if is_due else self._new.take(1)[0]
            self._taken += int(tokens[drawn[0]][drawn[1]])
            (old if is_due else new).append(drawn)
        return old + new

    def _old_total(self, step: int) -> int:
        return self._share.numerator * self.mixing.batch * step // self._share.denominator

    def _set_aside(self, name: str, state: Json | None) -> Cursor:
        """Where the rows of an old source that are new stand; replay of it goes on behind the last of them."""
        cursor = self._cursors[name]
        before = read_cursors(state, SET_ASIDE).get(name)
        if before is not None and before.order == self.mixing.order:
            return before
        aside = replace(cursor, cuts=list(cursor.cuts))
        cursor.take(min(self.mixing.most[name], cursor.left))
        return aside

    def _open_streams(self) -> None:
        order, cursors = self.mixing.order, {**self._cursors, **self._aside}
        self._new = Stream([cursors[name] for name in self.mixing.new], order, most=self.mixing.most)
        self._old = {name: Stream([self._cursors[name]], order) for name in self._weights}

    def _draw_old(self, tokens: Mapping[str, Lengths] | None = None) -> Row:
        name = self._most_behind()
        (drawn,) = self._old[name].take(1)
        self._drawn[name] += 1 if tokens is None else int(tokens[name][drawn[1]])
        return drawn

    def _most_behind(self) -> str:
        drawn = sum(self._drawn.values()) + 1
        total = sum(self._weights.values())
        return max(self._weights, key=lambda name: (self._weights[name] * drawn - total * self._drawn[name], name))


def _settings(mixing: ReplayMixing) -> Json:
    """What draws depend on, to tell a checkpoint of another mixing."""
    kept = mixing.model_dump(mode="json", exclude={"cursor", "kind"})
    return {**kept, "old": dict(sorted(mixing.old.items()))}


def _check(mixing: ReplayMixing, rows: Mapping[str, int], share: Fraction) -> None:
    missing = sorted({*mixing.new, *mixing.old} - set(rows))
    if missing:
        raise BadPlan(f"no rows are given for source {missing[0]}; every source of the mixing needs its file")
    both = sorted((set(mixing.new) & set(mixing.old)) - set(mixing.most))
    if both or len(set(mixing.new)) != len(mixing.new):
        raise BadPlan(f"source {(both or sorted(mixing.new))[0]} is named twice; a source is either new or old, once")
    if not 0 <= share <= 1:
        raise BadPlan(f"share {mixing.share} is not between 0 and 1")
    if share < 1 and not any(rows[name] for name in mixing.new):
        raise BadPlan("no new source has any rows; there is nothing to train on")
    if share > 0 and not any(rows[name] for name in mixing.old):
        raise BadPlan("old rows are to be replayed but no old source has any; set the share to 0")


def _integer_weights(weights: Mapping[str, str], rows: Mapping[str, int]) -> dict[str, int]:
    exact = {name: fraction(text, f"weight of {name}") for name, text in weights.items() if rows[name]}
    if any(weight < 0 for weight in exact.values()) or (exact and not sum(exact.values())):
        raise BadPlan("weights of old sources cannot be negative or all 0")
    scale = lcm(*(weight.denominator for weight in exact.values()))
    return {name: int(exact[name] * scale) for name in sorted(exact) if exact[name]}
