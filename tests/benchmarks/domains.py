"""Strategies and mixing methods on streams of texts: domains that shift weakly and strongly, and one source by year.

``python -m tests.benchmarks.domains --preset quick|standard|full [--model DIR] [--data DIR]``

``domains``: an English base, its own domain as the anchor, then five domains in turn. ``temporal``: minutes of one
committee, a batch a year. Rates are tuned for every arm alike; reported are losses on fixed validation files, which no
arm sees. By year, ``retrain`` starts again at every fifth year only, and there the others are compared with it.
``reordered``: the domains the other way round, strong shifts first, for the choice between strategies, whose rules were
made from the other two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from strategies.contract import EvalFile, ModelFiles
from strategies.settings import Json
from tests.benchmarks import grid, harness, lineup
from tests.benchmarks.batches import HELD_OUT, Batch, documents, write_batch, write_set
from tests.benchmarks.cells import Carry
from tests.benchmarks.grid import Grid
from tests.benchmarks.harness import Record
from tests.benchmarks.inputs import Missing, by_hash, first_tokens, model_files, packed_or_plain, rows_of
from tests.benchmarks.lineup import Arm, Stream, Streams

LM, TEMPORAL = "lm_domains", "temporal_fomc"
"""Folders below the data."""
ANCHOR = "novels-en"
DOMAINS = ("speeches-en", "reviews-en", "peps-en", "novels-de", "code-python")
"""In the order of the stages; the last two are strong shifts."""
TUNED_ON = ("speeches-en", "novels-de")
RETRAIN_EVERY = 5
PARTS = ("domains", "temporal", "reordered")
RATES = (1e-4, 3e-4, 1e-3)
"""No three rates have all arms within: under the strong shifts naive is best at the least, replay at the greatest."""
YEAR_RATES = (3e-4, 1e-3, 3e-3)
"""Small batches of one source take higher rates: every arm was best at the highest of :data:`RATES`."""
ADAPTER_RATES = (1e-3, 3e-3, 1e-2)
NAIVE = Arm(name="naive", strategy={"name": "naive"})
ARMS = (
    NAIVE,
    Arm(name="retrain", strategy={"name": "retrain"}),
    Arm(name="replay", strategy={"name": "rewarm-replay"}),
    Arm(name="half", strategy={"name": "half-finetune"}),
    Arm(name="half, replay", strategy={"name": "half-finetune", "mixing": "replay"}),
    Arm(name="infinite", strategy={"name": "rewarm-replay", "schedule": "infinite"}),
    Arm(name="auto", strategy={"name": "auto"}),
    Arm(name="skill-it", strategy={"name": "data-mixing"}, all_seeds=False),
    Arm(
        name="prior weights",
        strategy={"name": "data-mixing", "mixing": {"weights": "prior", "reweight": {"kind": "none"}}},
        all_seeds=False,
    ),
    Arm(
        name="uniform weights",
        strategy={"name": "data-mixing", "mixing": {"weights": "uniform", "reweight": {"kind": "none"}}},
        all_seeds=False,
    ),
    Arm(name="doremi", strategy={"name": "data-mixing", "mixing": {"reweight": "doremi"}}, all_seeds=False),
    Arm(name="regmix", strategy={"name": "data-mixing", "mixing": {"reweight": "regmix"}}, all_seeds=False),
    Arm(
        name="half, bottom",
        strategy={"name": "half-finetune", "selection": {"level": "bottom"}},
        all_seeds=False,
    ),
    Arm(
        name="replay, soup",
        strategy={"name": "rewarm-replay", "consolidation": {"kind": "merge", "method": "soup"}},
        all_seeds=False,
    ),
    Arm(
        name="naive, ties",
        strategy={"name": "naive", "consolidation": {"kind": "merge", "method": "ties", "siblings": 1}},
        all_seeds=False,
    ),
    Arm(name="mos", strategy={"name": "mos"}, training={"tuner": "lora"}, rates=ADAPTER_RATES, all_seeds=False),
    Arm(name="replay 5 %", strategy={"name": "rewarm-replay", "mixing": {"share": 0.05}}, all_seeds=False),
    Arm(name="replay 25 %", strategy={"name": "rewarm-replay", "mixing": {"share": 0.25}}, all_seeds=False),
)
"""A method more is a line more; with the first seed alone unless it is one of the seven that are always compared."""
ALWAYS = tuple(arm for arm in ARMS if arm.all_seeds)
ARMS_OF = {"domains": ARMS, "temporal": ARMS, "reordered": ALWAYS}
"""Part -> what is compared there."""


@dataclass(frozen=True, kw_only=True)
class Preset(lineup.Preset):
    """How much is done."""

    tokens: int
    """Of each domain's batch and of the anchor."""
    year_tokens: int
    years: int
    tuning_tokens: int
    tuning_years: int = 3
    fixed_documents: int
    year_documents: int
    """Documents of each fixed validation file that are scored, of a domain and of a year."""
    train_batch_size: int
    measured_tokens: int = 5_000
    """Of each source that is measured before a choice."""
    max_length: int = 256
    domains: tuple[str, ...] = DOMAINS
    """Stages of the first stream."""


SEEDS = (1234, 2345, 3456)
PRESETS = {
    "smoke": Preset(
        name="smoke",
        tokens=6_000,
        year_tokens=10_000,
        years=3,
        seeds=(1234,),
        tuning_tokens=12_000,
        tuning_years=1,
        tuning_held_out=0.5,
        fixed_documents=2,
        year_documents=1,
        train_batch_size=4,
        max_length=32,
    ),
    "quick": Preset(
        name="quick",
        tokens=50_000,
        year_tokens=10_000,
        years=5,
        seeds=SEEDS[:1],
        tuning_tokens=24_000,
        tuning_years=2,
        tuning_held_out=0.5,
        fixed_documents=4,
        year_documents=2,
        train_batch_size=4,
        measured_tokens=2_000,
        domains=("speeches-en", "novels-de", "code-python"),
        arms=tuple(arm.name for arm in ALWAYS),
        parts=("domains", "temporal"),
    ),
    "standard": Preset(
        name="standard",
        tokens=250_000,
        year_tokens=60_000,
        years=15,
        seeds=SEEDS,
        tuning_tokens=60_000,
        fixed_documents=16,
        year_documents=4,
        train_batch_size=8,
    ),
    "full": Preset(
        name="full",
        tokens=400_000,
        year_tokens=100_000,
        years=31,
        seeds=SEEDS,
        tuning_tokens=100_000,
        fixed_documents=45,
        year_documents=12,
        train_batch_size=8,
    ),
}


class Texts:
    """Cuts batches and eval sets of the preset's sizes."""

    def __init__(self, model: Path, data: Path, place: Path, preset: Preset) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._data = data
        self._place = place
        self._numbers = 0
        self.preset = preset
        self.model = ModelFiles(path=str(model))

    def batch(self, name: str, tokens: int, *, folder: str = "batches", held_out: float = HELD_OUT) -> Batch:
        """A batch of about so many tokens of a source, evenly spread over it."""
        rows = iter(by_hash(rows_of(packed_or_plain(self._data / f"{name}.train.jsonl"))))
        taken = [row for row, _ in first_tokens(rows, self._tokenizer, tokens)]
        return write_batch(
            self._place / folder,
            documents(taken, "causal-lm"),
            "causal-lm",
            name=Path(name).name,
            number=self._number(),
            held_out=held_out,
        )

    def fixed(self, name: str, count: int) -> EvalFile:
        """The first documents by hash of a source's validation file."""
        rows = by_hash(rows_of(packed_or_plain(self._data / f"{name}.val.jsonl")))[:count]
        found = documents(rows, "causal-lm")
        return write_set(self._place / "fixed", found, "causal-lm", name=Path(name).name, number=self._number())

    def years(self) -> list[str]:
        """The sources of the temporal stream, in order."""
        return years_of(self._data, self.preset)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def years_of(data: Path, preset: Preset) -> list[str]:
    """The sources of a preset's temporal stream, in order.

    Raises:
        Missing: there is none.
    """
    found = sorted(path.name.split(".")[0] for path in (data / TEMPORAL).glob("*.train.jsonl*"))
    if not found:
        raise Missing(f"{data / TEMPORAL} has no YEAR.train.jsonl; give --data")
    return [f"{TEMPORAL}/{year}" for year in found[: preset.years]]


def needs(model: Path, data: Path, preset: Preset) -> Iterator[Path]:
    """Files that a preset reads."""
    yield from model_files(model)
    sources = [f"{LM}/{ANCHOR}"]
    if preset.has("domains") or preset.has("reordered"):
        sources += [f"{LM}/{name}" for name in (*TUNED_ON, *preset.domains)]
    if preset.has("temporal"):
        sources += years_of(data, preset)
    yield from (data / f"{name}.{split}.jsonl" for name in sources for split in ("train", "val"))


def domain_streams(texts: Texts) -> Streams:
    """Domains in turn."""
    return _in_turn(texts, texts.preset.domains)


def reordered_streams(texts: Texts) -> Streams:
    """The same domains from the last to the first; rates are tuned on the same stream as there."""
    return _in_turn(texts, texts.preset.domains[::-1])


def _in_turn(texts: Texts, order: Sequence[str]) -> Streams:
    preset = texts.preset
    anchor, tuned_on, stages = ([f"{LM}/{name}" for name in names] for names in ((ANCHOR,), TUNED_ON, order))
    tuning = _stream(texts, anchor[0], preset.tuning_tokens, tuned_on, preset.tuning_tokens, tuning=True)
    stream = _stream(texts, anchor[0], preset.tokens, stages, preset.tokens)
    fixed = tuple(texts.fixed(name, preset.fixed_documents) for name in (*anchor, *stages))
    return Streams(tuning=tuning, stream=replace(stream, fixed=fixed))


def temporal_streams(texts: Texts) -> Streams:
    """The same of a batch a year; scored at every fifth year."""
    preset, years, anchor = texts.preset, texts.years(), f"{LM}/{ANCHOR}"
    tuned_on = years[: preset.tuning_years]
    tuning = _stream(texts, anchor, preset.tuning_tokens, tuned_on, preset.year_tokens, tuning=True)
    stream = _stream(texts, anchor, preset.tokens, years, preset.year_tokens)
    fixed = (
        texts.fixed(anchor, preset.fixed_documents),
        *(texts.fixed(year, preset.year_documents) for year in years),
    )
    return Streams(tuning=tuning, stream=replace(stream, fixed=fixed, score_every=RETRAIN_EVERY))


def _stream(
    texts: Texts, anchor: str, anchor_tokens: int, names: Sequence[str], tokens: int, *, tuning: bool = False
) -> Stream:
    folder, held_out = ("tuning", texts.preset.tuning_held_out) if tuning else ("batches", HELD_OUT)
    batch = partial(texts.batch, folder=folder, held_out=held_out)
    return Stream(
        task="causal-lm",
        model=texts.model,
        anchor=batch(anchor, anchor_tokens),
        stages=tuple(batch(name, tokens) for name in names),
        measured_tokens=texts.preset.measured_tokens,
    )


def by_year(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms as the temporal stream runs them: retraining on everything waits for every fifth year."""
    return tuple(replace(arm, every=RETRAIN_EVERY) if arm.name == "retrain" else arm for arm in arms)


def measure(model: Path, data: Path, preset: Preset, *, carry: Carry) -> Record:
    """The streams under every arm."""
    place = harness.CACHE / "domains" / preset.name
    training: Json = {"train_batch_size": preset.train_batch_size, "max_length": preset.max_length, "save_seconds": 1e9}
    found: Record = {"preset": asdict(preset)}
    arms = {part: preset.of(defined) for part, defined in ARMS_OF.items()}
    streams: dict[str, tuple[Callable[[Texts], Streams], Sequence[Arm], Sequence[float], Arm | None]] = {
        "domains": (domain_streams, arms["domains"], RATES, NAIVE),
        "temporal": (temporal_streams, by_year(arms["temporal"]), YEAR_RATES, NAIVE),
        "reordered": (reordered_streams, arms["reordered"], RATES, None),
    }
    for name, (made, compared, rates, reference) in streams.items():
        if not (preset.has(name) and compared):
            continue
        run = lineup.run(
            compared,
            made(Texts(model, data, place / "texts" / name, preset)),
            rates=rates,
            seeds=preset.seeds,
            training=training,
            place=place,
            carry=carry,
            reference=reference,
        )
        found |= {name: run} if run["cells"] else {}
    return {**found, "side_by_side_s": lineup.side_by_side_s(found[name] for name in PARTS if name in found)}


GRID = Grid(name="domains", presets=PRESETS, measure=measure, needs=needs, arms=ARMS, parts=PARTS)


def main(argv: list[str] | None = None) -> int:
    """Run a preset and write its JSON; 1 with one line if the data is not there."""
    return grid.main(GRID, argv)


if __name__ == "__main__":
    sys.exit(main())
