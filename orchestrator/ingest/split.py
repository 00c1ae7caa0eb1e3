"""Which documents are held out: by a keyed hash of what belongs together, stratified by label. Pure.

A unit is what must stay on one side: documents of one group or near-duplicate cluster. In each label with at least five
documents (the smaller labels together make one stratum) units are held out in the order of their keyed hash until
10 % is reached, at least one document. A unit that an earlier batch put on a side stays there: ``train`` is never held
out, ``held`` is as long as there is room. A stratum that is all one unit is split by document.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

AT_LEAST_ONE_OF = 5

Side = Literal["free", "train", "held"]


class Unit(NamedTuple):
    """Documents that stay together: ``name`` is hashed, ``number`` is the caller's own."""

    number: int
    name: str
    size: int
    label: str
    side: Side


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Units held out whole, units of which some documents are held out (number -> how many), held ones without room."""

    held: set[int] = field(default_factory=set)
    by_document: dict[int, int] = field(default_factory=dict)
    no_room: set[int] = field(default_factory=set)


def keyed(key: str, name: str) -> int:
    """The place of ``name`` in the order of this stream."""
    return int.from_bytes(hmac.digest(key.encode(), name.encode(), hashlib.sha256)[:8], "big")


def choose(units: Sequence[Unit], *, share: float, key: str) -> Choice:
    """Hold out ``share`` of the documents of ``units``."""
    choice = Choice()
    for stratum in _strata(units):
        _hold(stratum, _quota(stratum, share), key, choice)
    total = sum(unit.size for unit in units)
    if total >= AT_LEAST_ONE_OF and not choice.held and not choice.by_document:
        _hold(list(units), 1, key, choice)
    return choice


def _strata(units: Sequence[Unit]) -> Iterable[list[Unit]]:
    by_label: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_label[unit.label].append(unit)
    small = [unit for members in by_label.values() if _size(members) < AT_LEAST_ONE_OF for unit in members]
    yield from (members for _, members in sorted(by_label.items()) if _size(members) >= AT_LEAST_ONE_OF)
    if small:
        yield small


def _size(units: Iterable[Unit]) -> int:
    return sum(unit.size for unit in units)


def _quota(stratum: list[Unit], share: float) -> int:
    total = _size(stratum)
    one_label = len({unit.label for unit in stratum}) == 1
    least = 1 if total >= AT_LEAST_ONE_OF and one_label else 0
    return max(least, int(total * share + 0.5))


def _hold(stratum: list[Unit], quota: int, key: str, choice: Choice) -> None:
    ordered = sorted(stratum, key=lambda unit: (keyed(key, unit.name), unit.name))
    room = quota
    for unit in (*(u for u in ordered if u.side == "held"), *(u for u in ordered if u.side == "free")):
        if unit.size <= room:
            choice.held.add(unit.number)
            choice.no_room.discard(unit.number)
            room -= unit.size
        elif unit.side == "held":
            choice.no_room.add(unit.number)
    if quota and room == quota:
        _hold_from_large_units(ordered, quota, choice)


def _hold_from_large_units(ordered: list[Unit], quota: int, choice: Choice) -> None:
    """Every unit is larger than the quota: the smallest one, or some documents of it where it is most of them."""
    free = [unit for unit in ordered if unit.side == "free"]
    if not free:
        return
    smallest = min(free, key=lambda unit: unit.size)
    if 2 * smallest.size <= _size(ordered):
        choice.held.add(smallest.number)
    else:
        choice.by_document[smallest.number] = quota
