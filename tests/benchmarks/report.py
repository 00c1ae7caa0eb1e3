"""Tables and plots from the results: ``python -m tests.benchmarks.report``. Figures come from the JSON files alone.

Writes ``tests/benchmarks/results/*.md`` and ``*.png``, and the README's part between the benchmark marks.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import plots, strategies_report, summary, tables
from tests.benchmarks.harness import RESULTS, ROOT

README = ROOT / "README.md"
MARKS = re.compile(r"(<!-- benchmarks: begin -->\n).*?(<!-- benchmarks: end -->)", re.DOTALL)
PRESETS = ("full", "standard", "quick")
"""The largest first."""
Record = dict[str, Any]


TITLES = {
    "cli": "Start-up",
    "overhead": "The training loop beside a bare loop and transformers' Trainer (CPU time a step, paired)",
    "publish": "Storing, publishing and rolling back one model",
    "half_cost": "What half fine-tuning saves (paired with full fine-tuning)",
    "mixing_agent": "A mixing agent on domains that it never saw, beside constant mixtures at equal tokens",
    "ingest": "Ingest beside its bare parts: the first batch, then a second against the history of the first",
}


def readme_part() -> str:
    """What belongs between the marks: nothing where there are no results."""
    parts = [_main_part(found) for found in [_main_job()] if found]
    parts += [
        f"### {title}\n\n{part(found)}\n![{title}]({_shown(picture_of(path))})\n"
        for name, (title, part, _) in strategies_report.GRIDS.items()
        for path, found in _largest(name)
    ]
    printed = {
        "cli": start_up,
        "overhead": overhead,
        "half_cost": tables.half_cost_table,
        "mixing_agent": tables.mixing_agent_table,
        "publish": plain,
        "ingest": plain,
    }
    for name, table in printed.items():
        found = _read(f"{name}.json")
        if found is not None:
            parts.append(f"### {TITLES[name]}\n\n{_origin(found)}\n\n{table(found['measured'])}\n")
    return "\n".join(parts)


def _main_part(found: Record) -> str:
    picture = _shown(RESULTS / f"main_job-{found['preset']['name']}.png")
    return (
        f"### Forgetting, learning and cost\n\n{summary.markdown(found)}\n![loss of each domain by stage]({picture})\n"
    )


def _origin(found: Record) -> str:
    return f"Commit `{found['commit']}`, Python {found['machine']['python']}, {found['machine']['cores']} cores."


def with_part(text: str, part: str) -> str:
    """The README with another part between the marks.

    Raises:
        ValueError: the marks are gone.
    """
    if not MARKS.search(text):
        raise ValueError("README.md has lost its benchmark marks; put both back")
    return MARKS.sub(lambda found: found[1] + part + found[2], text)


def start_up(measured: Record) -> str:
    """Medians with the least and the most."""
    rows = ["| what | median | least | most |", "| --- | ---: | ---: | ---: |"]
    for name, one in measured.items():
        least, most = min(one["values"]), max(one["values"])
        rows.append(f"| {name} | {statistics.median(one['values']):.3g} {one['unit']} | {least:.3g} | {most:.3g} |")
    return "\n".join(rows)


def overhead(measured: Record) -> str:
    """Paired ratios with their intervals, a row a size."""
    names = list(next(iter(measured["sizes"].values()))["ratios"])
    rows = [f"| parameters | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for one in measured["sizes"].values():
        ratios = [
            f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" for ratio in one["ratios"].values()
        ]
        rows.append(f"| {one['parameters']:,} | {' | '.join(ratios)} |")
    return "\n".join(rows)


def plain(measured: Record) -> str:
    """Figures under their own names."""
    rows = ["| figure | value |", "| --- | ---: |"]
    for name, value in measured.items():
        values = value if isinstance(value, list) else [value]
        rows.append(f"| {name.replace('_', ' ')} | {', then '.join(f'{one:,}' for one in values)} |")
    return "\n".join(rows)


def _main_job() -> Record | None:
    """The larger preset's result, where there are several."""
    return next((found for _, found in _largest("main_job")), None)


def _largest(name: str) -> list[tuple[Path, Record]]:
    """The result of a grid's largest preset; none where there is none."""
    found = [(RESULTS / f"{name}-{preset}.json", _read(f"{name}-{preset}.json")) for preset in PRESETS]
    return [(path, one) for path, one in found if one is not None][:1]


def picture_of(path: Path) -> Path:
    """Where the plot of a result goes."""
    return path.with_suffix(".png")


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _read(name: str) -> Record | None:
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main() -> int:
    """Write everything that the results give."""
    for path in sorted(RESULTS.glob("main_job-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        path.with_suffix(".md").write_text(summary.markdown(found), encoding="utf-8")
        plots.main_job(found, picture_of(path))
        print(f"wrote {path.stem}.md and .png")
    for name, (_, part, plot) in strategies_report.GRIDS.items():
        for path in sorted(RESULTS.glob(f"{name}-*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
            path.with_suffix(".md").write_text(part(found), encoding="utf-8")
            plot(found, picture_of(path))
            print(f"wrote {path.stem}.md and .png")
    found = _read("mixing_agent.json")
    if found is not None:
        plots.mixing_agent(found["measured"], RESULTS / "mixing_agent.png")
    README.write_text(with_part(README.read_text(encoding="utf-8"), readme_part()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
