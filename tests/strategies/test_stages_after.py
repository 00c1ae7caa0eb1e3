"""A stage after another: what of the live version it goes on from, and what it must not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from strategies.contract import EvalFile, MergeWork, ModelFiles, SourceFile, TrainWork
from strategies.contract.graph import Artifact
from strategies.errors import BadPlan
from strategies.planning.resolution import resolve
from tests.strategies.makers import merge_job, plan, signals, source, train_job, values

TRUNK = ("state/trunk", "state/optimizer", "state/mixing")
INFINITE: dict[str, Any] = {"mixing": "replay", "schedule": "infinite"}


class Places:
    """Files that are named by what they are; the live version has been trained in full since the base."""

    labels: tuple[str, ...] = ()

    def version(self, owner: str) -> ModelFiles:
        return ModelFiles(path=f"/{owner}")

    def artifact(self, artifact: Artifact) -> str:
        return f"/{artifact.of}/{artifact.role}"

    def batches(self, names: Collection[str]) -> dict[str, SourceFile]:
        return {}

    def sets(self, names: Collection[str]) -> tuple[EvalFile, ...]:
        return ()

    def forbidden(self) -> tuple[EvalFile, ...]:
        return ()


def test_new_classes_begin_a_new_trunk_and_new_moments() -> None:
    known: dict[str, Any] = {"task": "classification", "parent_labels": ("a", "b"), "stage": 2}
    first = plan(signals(**known, labels=("a", "b")), **INFINITE)
    after = {**known, "parent_state": TRUNK, "parent_settings": values(first)}
    assert (
        train_job(plan(signals(**after, labels=("a", "b")), **INFINITE), "trunk").optimizer == "@live/state/optimizer"
    )
    grown = plan(signals(**after, labels=("a", "b", "c")), **INFINITE)
    trunk = train_job(grown, "trunk")
    assert (trunk.init, trunk.optimizer) == ("@live/answer/model", None)
    assert "new classes" in grown.values["trunk"].origin
    kept = {**known, "parent_state": ("state/optimizer",), "labels": ("a", "b", "c")}
    moments = plan(signals(**kept), keep_optimizer=True).values["optimizer"]
    assert (moments.value, "new classes" in moments.origin) == ("reset", True)


def test_a_trunks_adapter_is_not_put_on_the_model_that_a_merge_made_of_it() -> None:
    given: dict[str, Any] = {"training": {"tuner": "lora"}}
    first = plan(signals(**given), **INFINITE)
    after = {**given, "parent_state": TRUNK, "parent_settings": values(first), "stage": 2}
    on_adapter = plan(signals(**after, parent_answer=("answer/adapter",)), **INFINITE)
    assert on_adapter.values["trunk"].value == "resumed"
    merged = plan(signals(**after, parent_answer=("answer/model",)), **INFINITE)
    assert (merged.values["trunk"].value, "merged model" in merged.values["trunk"].origin) == ("new", True)


def test_a_trunks_moments_do_not_go_on_from_its_release() -> None:
    first = plan(signals(), **INFINITE)
    after = signals(parent_state=TRUNK, parent_settings=values(first), stage=2)
    assert plan(after, keep_optimizer=True).values["optimizer"].value == "reset"


@pytest.mark.parametrize(("name", "folder"), [("retrain", "/base"), ("naive", "/live")])
def test_adapters_are_merged_on_the_folder_that_they_were_trained_on(name: str, folder: str) -> None:
    made = plan(
        signals(training={"tuner": "lora"}), name=name, consolidation={"kind": "merge", "method": "soup"}
    )  # fmt: skip
    _, work = resolve(merge_job(made), Places())
    assert isinstance(work, MergeWork)
    assert {one.model.path for one in work.parents} == {folder}
    assert {one.model.adapter for one in work.parents} == {f"/train-{at}/answer/adapter" for at in (1, 2, 3)}


def test_doremis_reference_stands_on_the_base_where_its_proxy_does() -> None:
    mixing = {"kind": "weighted", "weights": "prior", "reweight": "doremi"}
    made = plan(signals(training={"tuner": "lora"}), name="retrain", mixing=mixing)
    model, work = resolve(train_job(made, "proxy"), Places())
    assert isinstance(work, TrainWork)
    assert work.reference is not None
    assert (model.path, work.reference.path) == ("/base", "/base")


def test_fisher_looks_at_rows_that_each_one_knows() -> None:
    first = plan(signals(), **INFINITE)
    carried = values(first) | {"left_over": {"batch-3": 200}}
    fisher: dict[str, Any] = {"consolidation": {"kind": "merge", "method": "fisher"}}
    old = (source("batch-1", 800), source("batch-2", 400), source("batch-3"))
    after = signals(
        new=(source("batch-4"),), old=old, parent_state=TRUNK, parent_settings=carried, stage=2
    )  # fmt: skip
    assert set(merge_job(plan(after, **INFINITE, **fisher)).rows.values()) == {"batch-4"}
    one: dict[str, Any] = {"consolidation": {"kind": "merge", "method": "fisher", "siblings": 1}}
    assert merge_job(plan(signals(), name="retrain", **one)).rows == {"train-1": "batch-3", "start": "anchor"}
    with pytest.raises(BadPlan, match="no earlier batch to estimate the start"):
        plan(signals(anchor=None), name="retrain", **one)
