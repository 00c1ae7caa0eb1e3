"""Tables and plots from the results: ``python -m tests.benchmarks.report``. Figures come from the JSON files alone.

Writes ``tests/benchmarks/results/*.md`` and ``*.png``, the page docs/benchmarks.md of all of them, and the README's
part between the benchmark marks: what each came to.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import classes, domains, half_cost_tables, mixing_agent_tables, plots, strategies_report, summary
from tests.benchmarks.harness import RESULTS, ROOT

README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

What was measured, the largest preset of each benchmark, tables and plots.
`python -m tests.benchmarks.report` makes it from the JSON files in
[tests/benchmarks/results](../tests/benchmarks/results); [the README](../README.md#benchmarks) has the commands that
made those.

## What they read

`REKINDLE_BENCH_DATA` names a folder with `models/base-en`, a small causal language model, and `data`; `--model` and
`--data` name either alone. Files are JSONL, plain or gzipped.

| below `data` | files | rows |
| --- | --- | --- |
| `lm_domains/` | `DOMAIN.train.jsonl`, `DOMAIN.val.jsonl` | `text` |
| `temporal_fomc/` | `YEAR.train.jsonl`, `YEAR.val.jsonl` | `text` |
| `cls/SET/` | `train.jsonl`, `val.jsonl`, `test.jsonl` | `text`, `label`, `task` (a number) |
| `sft/` | `FAMILY.train.jsonl`, `FAMILY.test.jsonl` | `instruction`, `input`, `output` |

What is not there is named when a benchmark starts.
"""
MARKS = re.compile(r"(<!-- benchmarks: begin -->\n).*?(<!-- benchmarks: end -->)", re.DOTALL)
PRESETS = ("full", "standard", "short", "quick")
"""The largest first."""
Record = dict[str, Any]


def page() -> str:
    """Every benchmark that has a result."""
    parts = [HEAD]
    for one in GRIDS:
        parts += [_part(one, one.words(found), path) for path, found in largest(one, RESULTS)]
    for one in MEASURED:
        for path, found in largest(one, RESULTS):
            parts.append(_part(one, f"{_origin(found)}\n\n{one.words(found)}", path))
    return "\n".join(parts)


def _part(chapter: Chapter, words: str, path: Path) -> str:
    """A chapter with the pictures that lie beside its result."""
    shown = "\n\n".join(f"![{chapter.title}](../{_shown(picture)})" for picture in _pictures(path))
    return f"## {chapter.title}\n\n{words}\n" + (f"\n{shown}\n" if shown else "")


def readme_part() -> str:
    """What belongs between the marks: what the grids came to, and where all the rest is."""
    rows = [
        (_link(one), f"`{found['preset']['name']}`", one.line(found).replace("|", r"\|"))
        for one in GRIDS
        for _, found in largest(one, RESULTS)
    ]
    besides = ", ".join(_link(one) for one in MEASURED if largest(one, RESULTS))
    table = "\n".join(
        ["| | preset | what it came to |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    )
    first = next(iter(largest(GRIDS[0], RESULTS)), None)
    shown = [f"![{GRIDS[0].title}]({_shown(picture)})" for picture in _pictures(first[0])] if first else []
    return "\n\n".join([table, f"Besides: {besides}.", *shown]) + "\n"


def _link(chapter: Chapter) -> str:
    heading = re.sub(r"[^\w\- ]", "", chapter.title.lower()).replace(" ", "-")
    return f"[{chapter.title}]({_shown(PAGE)}#{heading})"


def _pictures(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}*.png"))


def _origin(found: Record) -> str:
    preset = f"Preset `{found['preset']['name']}`, commit" if "preset" in found else "Commit"
    return f"{preset} `{found['commit']}`, Python {found['machine']['python']}, {found['machine']['cores']} cores."


def with_part(text: str, part: str) -> str:
    """The README with another part between the marks.

    Raises:
        ValueError: the marks are gone.
    """
    if not MARKS.search(text):
        raise ValueError("README.md has lost its benchmark marks; put both back")
    return MARKS.sub(lambda found: found[1] + part + found[2], text)


def start_up(found: Record) -> str:
    """Medians with the least and the most."""
    rows = ["| what | median | least | most |", "| --- | ---: | ---: | ---: |"]
    for name, one in found["measured"].items():
        least, most = min(one["values"]), max(one["values"])
        rows.append(f"| {name} | {statistics.median(one['values']):.3g} {one['unit']} | {least:.3g} | {most:.3g} |")
    return "\n".join(rows)


def overhead(found: Record) -> str:
    """Paired ratios with their intervals, a row a size."""
    sizes = found["measured"]["sizes"].values()
    names = list(next(iter(sizes))["ratios"])
    rows = [f"| parameters | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for one in sizes:
        ratios = [
            f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" for ratio in one["ratios"].values()
        ]
        rows.append(f"| {one['parameters']:,} | {' | '.join(ratios)} |")
    return "\n".join(rows)


def plain(found: Record) -> str:
    """Figures under their own names."""
    rows = ["| figure | value |", "| --- | ---: |"]
    for name, value in found["measured"].items():
        values = value if isinstance(value, list) else [value]
        rows.append(f"| {name.replace('_', ' ')} | {', then '.join(f'{one:,}' for one in values)} |")
    return "\n".join(rows)


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A benchmark in the report: what is said of its result, and what is drawn of it."""

    name: str
    title: str
    words: Callable[[Record], str]
    draw: Callable[[Record, Path], None] | None = None
    line: Callable[[Record], str] = lambda _: ""
    """What a whole result came to, in one line."""
    parts: tuple[str, ...] = ()
    """Streams or data sets that a result may have, each of them for itself."""


GRIDS = (
    Chapter(
        name="main_job",
        title="Forgetting, learning and cost",
        words=summary.markdown,
        draw=plots.main_job,
        line=summary.line,
    ),
    Chapter(
        name="domains",
        title="Strategies on domains and on years",
        words=strategies_report.domains,
        draw=plots.domain_losses,
        line=strategies_report.domains_line,
        parts=domains.PARTS,
    ),
    Chapter(
        name="classes",
        title="Classes that come in tasks",
        words=strategies_report.classes,
        draw=plots.class_accuracies,
        line=strategies_report.classes_line,
        parts=classes.SETS,
    ),
    Chapter(
        name="sft",
        title="Instruction tuning that goes on",
        words=strategies_report.sft,
        draw=plots.sft_losses,
        line=strategies_report.sft_line,
    ),
)
"""Their words say where they come from."""
MEASURED = (
    Chapter(name="cli", title="Start-up", words=start_up),
    Chapter(
        name="overhead",
        title="The training loop beside a bare loop and transformers' Trainer (CPU time a step, paired)",
        words=overhead,
    ),
    Chapter(
        name="half_cost",
        title="What half fine-tuning saves (paired with full fine-tuning)",
        words=half_cost_tables.half_cost_table,
        draw=plots.half_cost,
    ),
    Chapter(
        name="mixing_agent",
        title="A mixing agent outside of what it was taught, beside constant mixtures",
        words=mixing_agent_tables.mixing_agent_table,
        draw=plots.mixing_agent,
    ),
    Chapter(name="publish", title="Storing, publishing and rolling back one model", words=plain),
    Chapter(
        name="ingest",
        title="Ingest beside its bare parts: the first batch, then a second against the history of the first",
        words=plain,
    ),
)
"""Under a line that says where they come from."""


def largest(chapter: Chapter, folder: Path) -> list[tuple[Path, Record]]:
    """The result of a benchmark's largest preset, and of smaller ones the parts that no larger one has."""
    paths = [*(folder / f"{chapter.name}-{preset}.json" for preset in PRESETS), folder / f"{chapter.name}.json"]
    results = [(path, _read(path)) for path in paths if path.is_file()]
    if not chapter.parts:
        return results[:1]
    shown: list[tuple[Path, Record]] = []
    seen: set[str] = set()
    for path, found in results:
        has = {part for part in chapter.parts if part in found}
        if has - seen:
            shown.append((path, {name: one for name, one in found.items() if name not in seen}))
        seen |= has
    return shown


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _read(path: Path) -> Record:
    found: Record = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(chapter: Chapter, path: Path, found: Record) -> None:
    """A chapter's file and picture beside its result."""
    path.with_suffix(".md").write_text(chapter.words(found) + "\n", encoding="utf-8")
    if chapter.draw is not None:
        chapter.draw(found, path.with_suffix(".png"))
    print(f"wrote {path.stem}")


def main() -> int:
    """Write everything that the results give."""
    for one in (*GRIDS, *MEASURED):
        for path in sorted(RESULTS.glob(f"{one.name}*.json")):
            _write(one, path, _read(path))
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(with_part(README.read_text(encoding="utf-8"), readme_part()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
