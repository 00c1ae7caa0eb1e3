"""RegMix's fit: a regression over the tiny runs of earlier jobs, and the mixture that it chooses."""

from __future__ import annotations

from pathlib import Path

from threadpoolctl import threadpool_limits

from strategies.contract import FitWork, JobResult, JobSpec
from strategies.fitting import regmix
from strategies.jobs.mixing import write_mixture
from strategies.jobs.proxy import read_runs
from strategies.jobs.runtime import Runtime

FIT_FILE = "regmix.json"


def fit(spec: JobSpec, work: FitWork, runtime: Runtime) -> JobResult:
    """Fit and leave the mixture; everything that led to it stands in the evidence."""
    runs = [run for folder in work.runs for run in read_runs(Path(folder))]
    runtime.enter("fitting")
    with threadpool_limits(limits=spec.threads):
        found = regmix.fit(runs, work.template.fit)
    out = runtime.directory / "out"
    write_mixture(out / "found", found.mixture)
    (out / "regmix").mkdir(exist_ok=True)
    (out / "regmix" / FIT_FILE).write_text(found.model_dump_json())
    return JobResult(
        kind="fit",
        artifacts={"state/mixture": "out/found", "evidence/regmix": "out/regmix"},
        facts={
            "runs": len(runs),
            "chosen": found.chosen,
            "regressions": {name: one.model_dump() for name, one in found.regressions.items()},
            "mixture_found": found.mixture,
            "uncapped": found.uncapped,
        },
    )
