"""The main benchmark: does re-warming with replay keep what naive fine-tuning forgets, at the price of neither?

``python -m tests.benchmarks.main_job --preset quick|standard [--model DIR] [--data DIR]``

An English base model, its own domain as the anchor, then three batches in this order: speeches (weak shift), German
novels and Python code (strong shifts). Every source has the same number of tokens in every arm, every arm the same
learning rate: tuned over three rates with one seed, by the loss of naive fine-tuning on documents of the first batch's
source that nothing else sees, which favours the baseline. The gate only records. Everything runs through the daemon:
a stream for each arm and seed, two jobs of one thread at a time. Reported are losses on the fixed validation files,
which no arm sees.

A cell (one arm, one seed) is kept under ``.bench/`` by the hash of its configuration, data and training code:
an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import harness
from tests.benchmarks import inputs as cutting
from tests.benchmarks.cells import Cells
from tests.benchmarks.harness import CACHE, ROOT, SLOTS, Record, code_hash, say
from tests.benchmarks.inputs import ANCHOR, BATCHES, DOMAINS, Inputs, Missing, file_hash
from tests.benchmarks.product import Product, ProductError

ARMS = ("naive", "rewarm-replay", "retrain")
RATES = (1e-4, 3e-4, 1e-3)
TUNING_SEED = 1234
TUNING_TOKENS = 30_000
DECIDING = ("flow", "ingest", "policies")
"""Folders of the daemon's code that cells follow from besides: how batches are split, what the gate says."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much is done."""

    name: str
    tokens: int
    seeds: tuple[int, ...]
    train_batch_size: int
    stage_s: float
    fixed_documents: int | None
    """Documents of each fixed validation file that are scored; None: all."""


PRESETS = {
    "quick": Preset(name="quick", tokens=50_000, seeds=(1234,), train_batch_size=4, stage_s=1200, fixed_documents=12),
    "standard": Preset(
        name="standard",
        tokens=400_000,
        seeds=(1234, 2345, 3456),
        train_batch_size=16,
        stage_s=7200,
        fixed_documents=None,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm with one seed and one learning rate over some of the batches."""

    arm: str
    seed: int
    rate: float
    batches: tuple[str, ...]
    tuning: bool = False


class Bench:
    """Runs the cells of a preset through one daemon."""

    def __init__(self, inputs: Inputs, preset: Preset, place: Path) -> None:
        self._inputs = inputs
        self._preset = preset
        self._code = code_hash(
            *sorted(path for name in DECIDING for path in (ROOT / "orchestrator" / name).rglob("*.py"))
        )
        self._place = place / preset.name
        self._cells = Cells(self._place)
        self._texts = self._place / f"texts-{self._cutting()}"
        self._product = Product(self._place / f"home-{self._code[:12]}")

    def run(self) -> Record:
        """All cells, tuning first; the whole result."""
        self._texts.mkdir(parents=True, exist_ok=True)
        sources = {domain: self._cut(domain) for domain in DOMAINS}
        began = time.monotonic()
        with self._product.serving():
            tuning = [
                Cell(arm="naive", seed=TUNING_SEED, rate=rate, batches=BATCHES[:1], tuning=True) for rate in RATES
            ]
            tuned = [{"rate": found["cell"]["rate"], "loss": _tuning_loss(found)} for found in self._all(tuning)]
            rate = min(tuned, key=lambda found: found["loss"])["rate"]
            say(f"learning rate {rate:g} for all arms")
            cells = [
                Cell(arm=arm, seed=seed, rate=rate, batches=BATCHES) for seed in self._preset.seeds for arm in ARMS
            ]
            found = self._all(cells)
        measured = {
            "preset": asdict(self._preset),
            "learning_rate": rate,
            "tuning": tuned,
            "sources": sources,
            "cells": found,
            "code": self._code,
            "wall_s": round(time.monotonic() - began, 1),
        }
        return harness.stamped("main_job", measured)

    def _cut(self, domain: str) -> Record:
        path = self._text(domain)
        facts = path.with_suffix(".json")
        if not facts.is_file():
            parts = [(path, self._preset.tokens)]
            if domain == BATCHES[0]:
                parts.append((self._tuning_text(), TUNING_TOKENS))
            tokens = self._inputs.cut(domain, parts)[0]
            facts.write_text(json.dumps({"tokens": tokens, "sha256": file_hash(path)}))
        kept: Record = json.loads(facts.read_text())
        return kept | {"fixed_sha256": file_hash(self._fixed(domain))}

    def _cutting(self) -> str:
        """A name for all that the cut texts follow from, so that none of another making are taken for them."""
        facts = [asdict(self._preset), TUNING_TOKENS, file_hash(Path(cutting.__file__))]
        facts += [file_hash(self._inputs.model / "tokenizer.json")]
        facts += [file_hash(path) for name in DOMAINS for path in (self._inputs.train(name), self._inputs.fixed(name))]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def _text(self, domain: str) -> Path:
        return self._texts / f"{domain}.jsonl"

    def _tuning_text(self) -> Path:
        return self._texts / "tuning.jsonl"

    def _fixed(self, domain: str) -> Path:
        """The fixed validation file, or its first documents where the preset takes no more."""
        count = self._preset.fixed_documents
        if count is None:
            return self._inputs.fixed(domain)
        path = self._texts / f"{domain}.fixed.jsonl"
        if not path.is_file():
            self._inputs.cut_fixed(domain, count, path)
        return path

    def _all(self, cells: list[Cell]) -> list[Record]:
        with concurrent.futures.ThreadPoolExecutor(SLOTS) as pool:
            return list(pool.map(self._one, cells))

    def _one(self, cell: Cell) -> Record:
        return self._cells.kept(self._facts_of(cell), lambda key: self._made(cell, key))

    def _made(self, cell: Cell, key: str) -> Record:
        stream = f"{cell.arm}-{cell.seed}-{key[:10]}"
        say(f"{stream}: rate {cell.rate:g}")
        self._register(stream, cell)
        sets = 1 + len(self._evaluations(cell))
        base = self._product.wait_for_base(stream, sets=sets, timeout_s=self._preset.stage_s)
        stages = [self._stage(stream, domain, number) for number, domain in enumerate(cell.batches)]
        return {"cell": asdict(cell), "stream": stream, "base": fixed_scores(base), "stages": stages}

    def _facts_of(self, cell: Cell) -> list[Any]:
        facts = [asdict(cell), asdict(self._preset), TUNING_TOKENS, self._code]
        facts += [file_hash(self._inputs.model / "model.safetensors")]
        facts += [file_hash(self._text(domain)) for domain in DOMAINS]
        return [*facts, *(file_hash(self._fixed(domain)) for domain in DOMAINS)]

    def _register(self, stream: str, cell: Cell) -> None:
        states = {one["name"]: one["state"] for one in self._product.ask("stream", "list")}
        if states.get(stream) == "failed":
            self._product.ask("stream", "remove", stream)
        elif states.get(stream, "archived") != "archived":
            return
        settings = self._place / f"{stream}.yaml"
        settings.write_text(yaml.safe_dump(self._settings(stream, cell)))
        self._product.ask("stream", "add", stream, "--model", str(self._inputs.model), "--config", str(settings))

    def _settings(self, stream: str, cell: Cell) -> dict[str, Any]:
        return {
            "format": 1,
            "name": stream,
            "task": "causal-lm",
            "model": str(self._inputs.model),
            "anchor": str(self._text(ANCHOR)),
            "evaluations": self._evaluations(cell),
            "strategy": {"name": cell.arm},
            "training": {
                "learning_rate": cell.rate,
                "seed": cell.seed,
                "train_batch_size": self._preset.train_batch_size,
            },
            "gate": {"mode": "record"},
            "resources": {"cpus": 1},
        }

    def _evaluations(self, cell: Cell) -> dict[str, str]:
        fixed = {f"fixed-{domain}": str(self._fixed(domain)) for domain in DOMAINS}
        return fixed | ({"tuning": str(self._tuning_text())} if cell.tuning else {})

    def _stage(self, stream: str, domain: str, number: int) -> Record:
        """Bring one batch and retrain, or find that an earlier run did."""
        batches = [one for one in self._product.ask("batch", "list", stream) if one["kind"] == "data"]
        if len(batches) <= number:
            self._product.ask("ingest", stream, str(self._text(domain)))
        decisions = self._product.ask("decision", "list", stream)
        if len(decisions) <= number:
            self._product.ask("retrain", stream)
            decisions = self._product.ask("decision", "list", stream)
        decision = self._product.wait_for_decision(decisions[number]["id"], timeout_s=self._preset.stage_s)
        if decision["result"] != "promoted":
            raise ProductError(
                f"{stream}: {domain} made nothing live: {decision['outcome']}; remove {self._place} to begin anew"
            )
        say(f"{stream}: {domain} done")
        return self._facts(stream, domain, decision)

    def _facts(self, stream: str, domain: str, decision: Record) -> Record:
        version = self._product.ask("version", "show", f"{stream}/{decision['version']}")
        jobs = [self._product.ask("job", "show", str(job)) for job in decision["jobs"]]
        trained = [job for job in jobs if job["kind"] == "train"]
        verdict = decision["verdict"]
        return {
            "domain": domain,
            "version": decision["version"],
            "scores": fixed_scores(version),
            "own": version["scores"],
            "tokens": sum(int(job["progress"]["tokens"]) for job in trained),
            "steps": sum(int(job["progress"]["steps"]) for job in trained),
            "reason": decision["reason"],
            "gate": verdict["outcome"],
            "gate_reason": verdict["reason"],
            "job_s": {job["kind"]: _took_s(job) for job in jobs},
        }


def fixed_scores(version: Record) -> dict[str, float]:
    """Domain -> loss on its fixed validation file."""
    return {domain: float(version["scores"][f"fixed-{domain}"]) for domain in DOMAINS}


def _tuning_loss(found: Record) -> float:
    return float(found["stages"][0]["own"]["tuning"])


def _took_s(job: Record) -> float | None:
    from datetime import datetime

    if not job["started_at"] or not job["finished_at"]:
        return None
    ends = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
    return round(ends.total_seconds(), 1)


def options(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    usual = Inputs.under(harness.shared_data())
    parser.add_argument("--preset", choices=sorted(PRESETS), default="quick")
    parser.add_argument(
        "--model", type=Path, default=usual.model, help="base model (default: below REKINDLE_BENCH_DATA)"
    )
    parser.add_argument(
        "--data", type=Path, default=usual.data, help="folder with DOMAIN.train.jsonl.gz and DOMAIN.val.jsonl"
    )
    harness.result_option(parser)


def main(argv: list[str] | None = None) -> int:
    """Run the preset and write its JSON; 1 with one line if the data is not there or something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.main_job")
    options(parser)
    given = parser.parse_args(argv)
    inputs = Inputs(model=given.model.absolute(), data=given.data.absolute())

    def work() -> None:
        inputs.check()
        found = Bench(inputs, PRESETS[given.preset], CACHE / "main_job").run()
        harness.write_result(found, given.results / f"main_job-{given.preset}.json")

    return harness.said("main_job", work, Missing, ProductError)


if __name__ == "__main__":
    sys.exit(main())
