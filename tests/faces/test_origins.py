"""Each value of a shown strategy says truly where it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.service.origins import by_leaf, carried
from orchestrator.service.views.streams import explained
from orchestrator.settings import StreamSettings

CHOSEN = "chosen at each retrain"


def origins(strategy: Any, given: dict[str, str]) -> dict[str, str]:
    """Key within the strategy -> origin, as a stream of these settings shows it."""
    raw = {"name": "s", "model": "base", "strategy": strategy}
    settings = StreamSettings.model_validate(raw).model_dump(mode="json")
    shown = explained(settings, by_leaf(raw, given))
    return {one.key.removeprefix("strategy."): one.origin for one in shown if one.key.startswith("strategy.")}


def test_a_kind_brings_its_own_defaults() -> None:
    strategy = {"name": "half-finetune", "mixing": {"kind": "replay"}}
    found = origins(strategy, {"strategy.name": "file", "strategy.mixing.kind": "--set"})
    assert (found["name"], found["mixing.kind"], found["mixing.share"]) == ("file", "--set", "default of replay")
    assert found["selection.kind"] == found["start"] == "strategy half-finetune"


def test_a_word_is_the_kind_alone() -> None:
    found = origins({"name": "naive", "consolidation": "ema"}, {"strategy.consolidation": "--set"})
    assert (found["consolidation.kind"], found["consolidation.horizon"]) == ("--set", "default of ema")


def test_a_strategy_given_as_a_whole_is_taken_apart() -> None:
    strategy = {"name": "naive", "mixing": {"kind": "replay", "share": 0.1}, "schedule": "infinite"}
    found = origins(strategy, {"strategy": "--set"})
    assert {found[key] for key in ("name", "mixing.kind", "mixing.share", "schedule.kind")} == {"--set"}
    assert found["schedule.cooldown"] == "default of infinite"
    assert found["selection.kind"] == found["keep_optimizer"] == "strategy naive"


def test_what_is_turned_without_a_kind_is_over_the_named_strategy() -> None:
    strategy = {"name": "data-mixing", "mixing": {"reweight": {"kind": "regmix"}, "updates": 5}}
    found = origins(strategy, {"strategy": "file"})
    assert (found["mixing.updates"], found["mixing.reweight.kind"]) == ("file", "file")
    assert (found["mixing.reweight.runs"], found["mixing.kind"]) == ("default of regmix", "strategy data-mixing")


def test_of_auto_what_nobody_turned_is_chosen_at_each_retrain() -> None:
    found = origins({"mixing": {"share": 0.1}, "probe": {"candidates": 3}}, {"strategy": "file"})
    assert (found["mixing.share"], found["mixing.kind"]) == ("file", "strategy rewarm-replay")
    assert (found["probe.candidates"], found["probe.budget"]) == ("file", "default")
    assert {found[key] for key in ("selection", "schedule", "objective", "consolidation", "start")} == {CHOSEN}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"strategy.mixing.kind": "new"}, ["strategy.name"]),
        ({"strategy.mixing.kind": "replay"}, ["strategy.name", "strategy.mixing.share"]),
        ({"strategy.mixing": {"kind": "new"}}, ["strategy.name"]),
        ({"strategy": {"name": "naive"}}, []),
    ],
)
def test_what_was_replaced_loses_its_origin(changes: dict[str, Any], kept: list[str]) -> None:
    earlier = {"strategy.name": "file", "strategy.mixing.share": "file"}
    settings = {"strategy": {"name": "naive", "mixing": {"kind": "replay", "share": 0.1}}}
    assert list(carried(earlier, settings, changes)) == kept
