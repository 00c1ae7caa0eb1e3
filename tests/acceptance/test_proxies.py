"""DoReMi and RegMix by a real daemon: proxies are jobs, and what they found is what the stage is trained with."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from strategies.mixing.simplex import caps, project
from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
TRAINING = ("--set", "training.max_steps=12", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")
SMALL = ("strategy.mixing.reweight.runs=24", "strategy.mixing.reweight.tokens=1024", "strategy.mixing.reweight.jobs=2")
EVEN = ("strategy.mixing.reweight.smoothing=0.2",)
"""Three steps of a proxy move weights by little, unless a good share is dealt out equally at each."""


@pytest.mark.parametrize(
    ("reweight", "domains", "screws", "before", "evidence"),
    [
        ("doremi", "batch", EVEN, {"reference", "proxy"}, {"mixture/reference", "mixture/proxy"}),
        (
            *("regmix", "clusters", SMALL, {"proxy-1", "proxy-2", "fit"}),
            {"runs/proxy-1", "runs/proxy-2", "regmix/fit"},
        ),
    ],
    ids=["doremi", "regmix"],
)
def test_weights_come_from_jobs_before_the_stages_own(
    daemon: Daemon, tmp_path: Path, reweight: str, domains: str, screws: tuple[str, ...], before: set[str],
    evidence: set[str],
) -> None:  # fmt: skip
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(60))
    given = (f"strategy.mixing.reweight={reweight}", f"strategy.mixing.domains={domains}", *screws, "gate.mode=record")
    daemon.cli(
        *("stream", "add", "s", "--model", str(models.llama(tmp_path / "base")), "--set", f"anchor={anchor}"),
        *("--strategy", "data-mixing", *TRAINING, *(part for one in given for part in ("--set", one))),
    )
    daemon.cli("ingest", "s", str(write_jsonl(tmp_path / "batch.jsonl", models.texts(60, start=100))))
    daemon.cli("retrain", "s", "--wait")
    found = daemon.json("version", "show", "s@live")
    jobs = found["facts"]["jobs"]
    assert set(jobs) == before | {"train"}
    assert found["state"] == "live"
    assert {f"evidence/{one}" for one in ("mixture", *evidence)} <= set(found["artifacts"])
    (trained,) = {tuple(sorted(point["weights"].items())) for point in jobs["train"]["mixture"]}
    weights = {name: float(weight) for name, weight in trained}
    assert weights == pytest.approx(within_limits(daemon, jobs), abs=1e-5)
    assert weights != pytest.approx(first_weights(daemon), abs=1e-3), "nothing was found"


def within_limits(daemon: Daemon, jobs: dict[str, Any]) -> dict[str, float]:
    """What the jobs before found, each domain with its least weight and repeated four times at most."""
    found = jobs["fit"]["mixture_found"] if "fit" in jobs else mean(jobs["proxy"]["mixture"])
    template = planned(daemon)
    sizes = {name: one["rows"] for name, one in jobs["train"]["sources"].items()}
    rows = {name: 4 * sum(sizes[one] for one in of) for name, of in template["mixing"]["domains"].items()}
    most = caps(rows, template["mixing"]["batch"] * template["steps"])
    return project({name: float(found[name]) for name in rows}, floor=0.1 / len(rows), most=most)


def mean(course: list[dict[str, Any]]) -> dict[str, float]:
    """Every domain's mean weight over all steps."""
    return {name: fmean(float(point["weights"][name]) for point in course) for name in course[0]["weights"]}


def first_weights(daemon: Daemon) -> dict[str, float]:
    """What the stage would have been trained on without them."""
    mixing = planned(daemon)["mixing"]
    given = {name: float(weight) for name, weight in mixing["weights"].items()}
    return {**given, mixing["rest"]: 1 - sum(given.values())}


def planned(daemon: Daemon) -> dict[str, Any]:
    """The template of the stage's own train job."""
    specs = [json.loads(path.read_text()) for path in daemon.home.jobs.glob("*/*/job.json")]
    (template,) = (spec["work"]["template"] for spec in specs if spec["name"] == "train")
    return dict(template)
