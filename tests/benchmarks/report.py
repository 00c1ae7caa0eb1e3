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

from tests.benchmarks import summary
from tests.benchmarks.inputs import BATCHES, DOMAINS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
README = ROOT / "README.md"
MARKS = re.compile(r"(<!-- benchmarks: begin -->\n).*?(<!-- benchmarks: end -->)", re.DOTALL)
Record = dict[str, Any]


TITLES = {
    "cli": "Start-up",
    "overhead": "The training loop beside a bare loop and transformers' Trainer (CPU time a step, paired)",
    "publish": "Storing, publishing and rolling back one model",
    "ingest": "Ingest beside its bare parts: the first batch, then a second against the history of the first",
}


def readme_part() -> str:
    """What belongs between the marks: nothing where there are no results."""
    parts = [_main_part(found) for found in [_main_job()] if found]
    tables = {"cli": start_up, "overhead": overhead, "publish": plain, "ingest": plain}
    for name, table in tables.items():
        found = _read(f"{name}.json")
        if found is not None:
            parts.append(f"### {TITLES[name]}\n\n{_origin(found)}\n\n{table(found['measured'])}\n")
    return "\n".join(parts)


def _main_part(found: Record) -> str:
    picture = (RESULTS / f"main_job-{found['preset']['name']}.png").relative_to(ROOT)
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


def plot(found: Record, path: Path) -> None:
    """Loss of every domain after every stage, one line an arm."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(DOMAINS), figsize=(4 * len(DOMAINS), 3.2), sharex=True)
    stages = ["base", *BATCHES]
    for axis, domain in zip(axes, DOMAINS, strict=True):
        for arm in dict.fromkeys(cell["cell"]["arm"] for cell in found["cells"]):
            cells = summary.by_seed(found, arm)
            lines = [[cell["base"][domain], *(stage["scores"][domain] for stage in cell["stages"])] for cell in cells]
            means = [statistics.fmean(at) for at in zip(*lines, strict=True)]
            (line,) = axis.plot(stages, means, marker="o", label=arm)
            axis.fill_between(
                stages,
                [min(at) for at in zip(*lines, strict=True)],
                [max(at) for at in zip(*lines, strict=True)],
                alpha=0.2,
                color=line.get_color(),
            )
        axis.set_title(domain)
        axis.tick_params(axis="x", rotation=30)
    axes[0].set_ylabel("loss, nats a token")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _main_job() -> Record | None:
    """The larger preset's result, where there are several."""
    return _read("main_job-standard.json") or _read("main_job-quick.json")


def _read(name: str) -> Record | None:
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main() -> int:
    """Write everything that the results give."""
    for path in sorted(RESULTS.glob("main_job-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        path.with_suffix(".md").write_text(summary.markdown(found), encoding="utf-8")
        plot(found, path.with_suffix(".png"))
        print(f"wrote {path.stem}.md and .png")
    README.write_text(with_part(README.read_text(encoding="utf-8"), readme_part()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
