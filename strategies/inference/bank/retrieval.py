"""Self-refined retrieval: ask an adapter, follow its answer to the adapter that owns it, until the answer stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[Sequence[int], Sequence[int]], Sequence[tuple[int, float]]]
"""Rows and the adapter of each -> for each the adapter that owns its answer, and how sure the answer is."""


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """For each row the place of its adapter, and how many rounds it took."""

    adapters: tuple[int, ...]
    rounds: tuple[int, ...]


def retrieve(start: Sequence[int], ask: Ask, *, rounds: int) -> Retrieved:
    """Refine each row's adapter for at most ``rounds`` rounds; only rows that still move are asked.

    A row stops when its adapter's answer belongs to that adapter. When it belongs to one that the row has already
    tried, the rows go round in a circle: the tried adapter with the surest answer is kept. Source: MOS (Sun et al.
    2025), METHODS 3.3; cycles and laziness METHODS 3.6.
    """
    current, used = list(start), [0] * len(start)
    tried: list[dict[int, float]] = [{} for _ in start]
    active = list(range(len(start)))
    for _ in range(rounds):
        if not active:
            break
        moving = []
        for row, (wanted, sure) in zip(active, ask(active, [current[row] for row in active]), strict=True):
            used[row] += 1
            tried[row][current[row]] = sure
            if wanted == current[row]:
                continue
            if wanted in tried[row]:
                current[row] = max(tried[row], key=lambda place, seen=tried[row]: (seen[place], -place))  # type: ignore[misc]
            else:
                current[row] = wanted
                moving.append(row)
        active = moving
    return Retrieved(adapters=tuple(current), rounds=tuple(used))
