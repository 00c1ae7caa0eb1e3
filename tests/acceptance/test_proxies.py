"""DoReMi and RegMix by a real daemon: proxies are jobs, and what they found is what the stage is trained with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
TRAINING = ("--set", "training.max_steps=12", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")
SMALL = ("strategy.mixing.reweight.runs=24", "strategy.mixing.reweight.tokens=1024", "strategy.mixing.reweight.jobs=2")


@pytest.mark.parametrize(
    ("reweight", "domains", "screws", "before"),
    [
        ("doremi", "batch", (), {"reference", "proxy"}),
        ("regmix", "clusters", SMALL, {"proxy-1", "proxy-2", "fit"}),
    ],
    ids=["doremi", "regmix"],
)
def test_weights_come_from_jobs_before_the_stages_own(
    daemon: Daemon, tmp_path: Path, reweight: str, domains: str, screws: tuple[str, ...], before: set[str]
) -> None:
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
    course = jobs["train"]["mixture"]
    assert set(jobs) == before | {"train"}
    assert sum(map(float, course[-1]["weights"].values())) == pytest.approx(1.0)
    assert found["state"] == "live"
