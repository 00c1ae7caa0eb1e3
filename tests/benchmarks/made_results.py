"""Results as the grids write them, made up: small enough that what follows from them can be told by hand."""

from __future__ import annotations

from typing import Any

from tests.benchmarks import sft
from tests.benchmarks.domains import ANCHOR, ARMS, DOMAINS
from tests.benchmarks.figures import Goal

SETS = (ANCHOR, *DOMAINS)
ON = {"torch": "2.13.0", "cores": 2}


def stage(number: int, scores: dict[str, float], *, tokens: int = 100, name: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "batches": number,
        "scores": scores,
        "tokens": tokens,
        "cpu_s": {"measure": 1.0, "train": 9.0},
    }


def domain_cell(arm: str, seed: int = 1, *, anchor: float, new: float = 2.0) -> dict[str, Any]:
    """The anchor's loss is ``anchor`` from the first stage on, a domain's ``new`` from its own stage on."""
    stages = [
        stage(
            at + 1,
            {ANCHOR: anchor} | {one: new if place <= at else 5.0 for place, one in enumerate(DOMAINS)},
            name=name,
        )
        for at, name in enumerate(DOMAINS)
    ]
    return {"cell": {"arm": arm, "seed": seed, "rate": 3e-4}, "base": dict.fromkeys(SETS, 4.0), "stages": stages}


def domain_grid(*, replay: float = 4.1) -> dict[str, Any]:
    at = {"naive": 6.0, "replay": replay, "half": 5.6, "half, replay": 4.05, "replay 5 %": 5.1, "replay 25 %": 4.6}
    found = [domain_cell(arm.name, anchor=at.get(arm.name, 4.05)) for arm in ARMS]
    found.append(domain_cell("naive", 2, anchor=7.0))
    return {"cells": found, "references": [], "rates": {arm.name: 3e-4 for arm in ARMS}}


def year_cell(arm: str, loss: float, *, tokens: int, every: int = 1) -> dict[str, Any]:
    sets = (ANCHOR, "1993", "1994", "1995")
    stages = [
        stage(at, dict.fromkeys(sets, loss) if at in (2, 3) else {}, tokens=tokens) for at in (1, 2, 3) if at >= every
    ]
    return {"cell": {"arm": arm, "seed": 1, "rate": 3e-4}, "base": dict.fromkeys(sets, 4.0), "stages": stages}


def year_grid() -> dict[str, Any]:
    found = [year_cell(arm.name, 2.0, tokens=10) for arm in ARMS if arm.name != "retrain"]
    found.append(year_cell("retrain", 1.99, tokens=60, every=2))
    return {"cells": found, "references": [], "rates": {arm.name: 3e-4 for arm in ARMS}}


def class_grid(mos: float = 0.9) -> dict[str, Any]:
    at = {"lora": 0.4, "lora, replay": 0.8, "nearest mean": 0.7, "mos": mos, "mos, released": 0.6}
    found = [
        {
            "cell": {"arm": arm, "seed": 1, "rate": 3e-4},
            "base": {},
            "stages": [stage(1, {"test-0": 1.0}), stage(2, {"test-0": end, "test-1": end})],
        }
        for arm, end in at.items()
    ]
    joint = {
        "cell": {"arm": "joint", "seed": 1, "rate": 1e-3},
        "base": {},
        "stages": [stage(2, {"test-0": 0.94, "test-1": 0.94})],
    }
    return {"cells": [*found, joint], "rates": dict.fromkeys([*at, "joint"], 1e-3)}


def sft_grid() -> dict[str, Any]:
    names = (*sft.FAMILIES, sft.GENERAL)
    stages = [
        stage(at + 1, {one: 1.0 if place == at else 2.0 for place, one in enumerate(names)} | {"scan:exact": 0.25})
        for at in range(len(sft.FAMILIES))
    ]
    cell = {"cell": {"arm": "naive", "seed": 1, "rate": 3e-4}, "base": dict.fromkeys(names, 3.0), "stages": stages}
    return {"cells": [cell], "rates": {"naive": 3e-4}}


def result(**grids: Any) -> dict[str, Any]:
    preset = {
        "name": "quick",
        "tokens": 10,
        "year_tokens": 5,
        "domains": DOMAINS,
        "seeds": [1],
        "fixed_documents": 4,
        "year_documents": 2,
        "train": 12,
        "test": None,
        "examples": 10,
        "max_length": 256,
        "epochs": 2.0,
    }
    return {"preset": preset, "machine": ON, "commit": "abc", "side_by_side_s": 60.0, **grids}


def by_what(goals: list[Goal]) -> dict[str, Goal]:
    return {goal.what: goal for goal in goals}
