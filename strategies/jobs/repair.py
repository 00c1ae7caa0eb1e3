"""Repair: a candidate that forgot goes back towards its parent in cheap ways; the best on ``select`` stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from strategies.errors import BadPlan, Refused
from strategies.jobs.workbench import Bench
from strategies.merging.choice import Judged, choose, gain, within
from strategies.merging.methods import drawn_half, maker_for
from strategies.merging.models import Grown
from strategies.settings import Json
from strategies.settings.merging import HalfResetMerge, InterpolateMerge, LinesMerge, Merge, RepairMerge


def repair(bench: Bench, settings: RepairMerge) -> tuple[bool, Json]:
    """Write, score and compare the trials; whether one was good enough, what was tried, and what could not be."""
    _check(bench)
    within_parent = _older_classes(bench)
    parent = bench.score(bench.spec.model, within=within_parent)
    candidate = bench.score(bench.work.parents[0].model, within=within_parent)
    sets = [
        Judged(name=one.file.name, metric=parent[one.file.name][0], role=one.role, tolerance=one.tolerance)
        for one in bench.work.sets
    ]
    before = _values(parent)
    trials: dict[str, dict[str, float]] = {}
    facts: dict[str, Json] = {}
    skipped: dict[str, str] = {}
    kept = bench.out / bench.into
    for name, settle in _trials(bench, settings):
        try:
            method = settle()
            maker = maker_for(method, bench.inputs)
        except Refused as error:
            skipped[name] = str(error)
            continue
        folder = bench.out / "trial"
        written = bench.write(folder, maker)
        trials[name] = _values(bench.score(bench.files(folder), within=within_parent))
        facts[name] = {
            **written,
            "method": method.model_dump(mode="json"),
            "scores": trials[name],
            "gain": gain(sets, trials[name], before),
            "within_tolerances": within(sets, trials[name], before),
        }
        shutil.rmtree(kept if choose(sets, trials, before) == name else folder, ignore_errors=True)
        if folder.exists():
            folder.rename(kept)
    chosen = choose(sets, trials, before)
    scores = {"parent": before, "candidate": _values(candidate)}
    return chosen is not None, {
        "chosen": chosen,
        "trials": facts,
        "skipped": skipped,
        "scores": scores,
        "candidate_gain": gain(sets, scores["candidate"], before),
    }


def _check(bench: Bench) -> None:
    if len(bench.work.parents) != 1:
        raise BadPlan(f"repair goes back from one candidate; it was given {len(bench.work.parents)}")
    if not any(one.role == "new" for one in bench.work.sets):
        raise BadPlan("repair keeps most of the gain on new data; name an eval set of role new")


def _older_classes(bench: Bench) -> dict[str, tuple[str, ...]]:
    """Older sets are judged among the classes that the parent knows, as the gate does."""
    base = bench.inputs.base
    parent = base.inner if isinstance(base, Grown) else base
    known = parent.labels if bench.spec.task == "classification" else ()
    return {one.file.name: known for one in bench.work.sets if one.role == "old" and known}


def _values(found: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
    return {name: value for name, (_, value) in found.items()}


def _trials(bench: Bench, settings: RepairMerge) -> Iterator[tuple[str, Callable[[], Merge]]]:
    """From the smallest step back to the largest, so that of equals the candidate's own side is preferred.

    Each is made when it is its turn, which may be refused.
    """
    for share in sorted(settings.shares):
        yield f"interpolate-{share:g}", partial(InterpolateMerge, share=share)
    for alpha in sorted(settings.alphas, reverse=True):
        yield f"lines-{alpha:g}", partial(LinesMerge, alpha=alpha)
    for number in range(settings.half_resets):
        yield f"half-reset-{number + 1}", partial(_half_reset, bench, number)


def _half_reset(bench: Bench, number: int) -> Merge:
    return HalfResetMerge(names=drawn_half(bench.inputs, seed=bench.spec.seed, number=number))
