"""Cells are kept by what they follow from, and no result loses one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from strategies.training.data import eval_side
from tests import models
from tests.benchmarks import cells, classes, domains, grid, harness, inputs, lineup, sft, worlds
from tests.benchmarks.cells import Cells, one_of
from tests.benchmarks.harness import Record, hash_of
from tests.benchmarks.lineup import Arm, Cell

TRAINING = {"train_batch_size": 4, "max_length": 32, "save_seconds": 1e9, "bf16": False}
ON = {"torch": "2.0"}


@dataclass
class Told:
    """Says what it is told, or fails with it."""

    fact: str = "one"
    error: str | None = None
    title: str = "told"
    made: list[str] = field(default_factory=list)

    @property
    def named(self) -> Record:
        return {"arm": self.fact}

    def facts(self) -> Any:
        return [self.fact]

    def carry_out(self, folder: Path) -> Record:
        self.made.append(folder.name)
        if self.error is not None:
            raise ValueError(self.error)
        return {"select": 1.0}


def by(code: str) -> Record:
    return {"code": code, "commit": code[:3], "machine": ON}


def test_cells_of_other_code_are_made_anew_unless_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    first = one_of(told, tmp_path, by("old code"))
    assert one_of(told, tmp_path, by("old code")) == first
    monkeypatch.setenv(cells.ANY_CODE, "1")
    assert one_of(told, tmp_path, by("new code")) == first
    monkeypatch.delenv(cells.ANY_CODE)
    assert one_of(told, tmp_path, by("new code"))["code"] == "new code"
    assert len(told.made) == 2


def test_the_cell_of_this_code_goes_before_newer_ones_and_the_newest_before_the_rest(tmp_path: Path) -> None:
    key, kept = hash_of(["one"]), Cells(tmp_path)
    for code, made_at in (("a", "2026-01-01"), ("c", "2026-03-01"), ("b", "2026-02-01")):
        kept.keep(key, {"code": code, "key": key, "made_at": made_at})
    kept.take({"families": {"cells": [{"code": "d", "key": key}]}})
    found = [kept.find(["one"], code=code) for code in ("a", "d", "other")]
    assert [one and one["code"] for one in found] == ["a", "d", "c"]
    assert Cells(tmp_path).find(["two"]) is None


def test_a_newer_cell_of_an_earlier_result_goes_before_an_older_one_that_is_kept(tmp_path: Path) -> None:
    key, kept = hash_of(["one"]), Cells(tmp_path)
    kept.keep(key, {"code": "a", "key": key, "made_at": "2026-01-01"})
    kept.take({"families": {"cells": [{"code": "b", "key": key, "made_at": "2026-02-01"}]}})
    found = kept.find(["one"])
    assert found is not None
    assert found["code"] == "b"


def test_a_grid_goes_on_from_the_cells_of_its_earlier_result(tmp_path: Path) -> None:
    """``facts`` name a cell, wherever it was kept; one from before cells had names is made anew."""
    cell = {"cell": {"arm": "naive"}, "select": 1.0, "code": "old", "key": hash_of(["one"])}
    result = {"format": 1, "machine": ON, "families": {"tuning": [{"arm": "naive"}], "cells": [cell]}}
    kept = Cells(tmp_path / "grid")
    kept.take({})
    kept.take(result)
    assert kept.kept(["one"], lambda _: {"made": "anew"}) == {**cell, "machine": ON}
    assert kept.kept(["two"], lambda _: {"made": "anew"}) == {"made": "anew"}


def test_a_cell_that_fails_is_told_and_not_tried_again_by_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(error="no\nroom")
    failed = one_of(told, tmp_path, by("a"))
    assert failed["failed"] == "ValueError: no room"
    assert failed["cell"] == {"arm": "one"}
    assert one_of(told, tmp_path, by("a")) == failed
    assert len(told.made) == 1
    told.error = None
    monkeypatch.setenv(cells.ANY_CODE, "1")
    assert one_of(told, tmp_path, by("b"))["select"] == 1.0


def test_a_result_keeps_the_cells_that_it_no_longer_names() -> None:
    """Settings that were changed, a part that was not asked for, and cells from before they had names."""
    old: list[Record] = [{"key": "a", "commit": "1"}, {"key": "b", "commit": "1"}]
    unnamed = {"arm": "naive", "select": 1.0}
    before = {"domains": {"tuning": [unnamed], "cells": old[:1]}, "temporal": {"cells": old[1:]}}
    found = {"domains": {"tuning": [], "cells": [{"key": "a", "commit": "2"}], "references": []}}
    after = grid.with_earlier(found, before)
    assert after["earlier"] == [unnamed, old[1]]
    assert grid.with_earlier(found, after)["earlier"] == [unnamed, old[1]]
    assert grid.with_earlier(found, found) == found


def arm_of(arms: tuple[Arm, ...], name: str) -> Arm:
    return next(one for one in arms if one.name == name)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> lineup.Streams:
    folder = tmp_path_factory.mktemp("streams")
    model, data = models.llama(folder / "llama", chat=True), worlds.lm_data(folder / "data")
    return domains.domain_streams(domains.Texts(model, data, folder / "batches", domains.PRESETS["smoke"]))


class Quick(Cell):
    """Comes to its rate at once; naive diverges at the greatest."""

    def carry_out(self, folder: Path) -> Record:
        if self.arm.name == "naive" and self.rate > 5e-4:
            raise ValueError("it diverged")
        return {"base": {}, "stages": [], "select": self.rate}


def here(work: Sequence[cells.Work], place: Path) -> list[Record]:
    """All cells, made in this process."""
    return [one_of(one, place, {"code": cells.code_of(work), "commit": "a1", "machine": ON}) for one in work]


@dataclass(frozen=True)
class Run:
    """The grid of three arms in a folder."""

    streams: lineup.Streams
    place: Path
    arms: tuple[Arm, ...] = tuple(arm_of(domains.ARMS, name) for name in ("naive", "replay", "half"))

    def __call__(
        self,
        arms: Sequence[Arm],
        seeds: tuple[int, ...],
        carry: cells.Carry,
        *,
        rates: Sequence[float] = (1e-4, 1e-3),
        reference: Arm | None = None,
    ) -> Record:
        return lineup.run(
            arms,
            self.streams,
            rates=rates,
            seeds=seeds,
            training=TRAINING,
            place=self.place,
            carry=carry,
            kind=Quick,
            reference=reference,
        )


@pytest.fixture
def run(tmp_path: Path, streams: lineup.Streams) -> Run:
    return Run(streams, tmp_path)


def named(found: Sequence[Record]) -> list[tuple[Any, ...]]:
    return [tuple(one["cell"].values()) for one in found]


def test_what_was_carried_out_before_stays_in_a_grids_result(run: Run) -> None:
    """A run of one arm gives that arm; of what is kept, all of it, and what is missing is named."""
    assert run(run.arms, (1, 2), cells.kept_of)["cells"] == []
    run(run.arms[:1], (1,), here)
    run(run.arms[1:2], (1, 2), here)
    found = run(run.arms, (1, 2), cells.kept_of)
    assert named(found["cells"]) == [("naive", 1, 1e-4), ("replay", 1, 1e-4), ("replay", 2, 1e-4)]
    assert found["rates"] == {"naive": 1e-4, "replay": 1e-4}
    assert found["missing"] == [["half", 1], ["naive", 2], ["half", 2]]


def test_what_other_code_made_stays_in_a_grids_result(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(run.arms[:2], (1,), here)
    monkeypatch.setattr(cells, "code_hash", lambda *_: "of later code")
    found = run(run.arms[:2], (1,), cells.kept_of)
    assert named(found["cells"]) == [("naive", 1, 1e-4), ("replay", 1, 1e-4)]


def test_a_rate_at_which_an_arm_fails_is_worse_than_any(run: Run) -> None:
    found = run(run.arms[:1], (1,), here)
    assert found["rates"] == {"naive": 1e-4}
    failed = {one["cell"]["rate"]: one["failed"] for one in found["tuning"] if "failed" in one}
    assert failed == {1e-3: "ValueError: it diverged"}


def test_an_arm_that_fails_keeps_no_other_from_being_carried_out(run: Run) -> None:
    found = run(run.arms[:2], (1,), here, rates=(6e-4, 1e-3))
    assert named(found["cells"]) == [("replay", 1, 6e-4)]
    assert found["missing"] == [["naive", 1]]
    assert found["rates"] == {"replay": 6e-4}


def test_a_reference_runs_at_the_rates_of_the_others_whichever_arms_are_asked_for(run: Run) -> None:
    """Of ``replay`` alone, naive at its rate comes with it; what has not been carried out of that is named."""
    naive, replay, half = run.arms
    both = (replace(replay, rates=None), replace(half, rates=(1e-4, 2e-4)))
    assert named(run(both[:1], (1,), here, rates=(3e-4, 1e-3), reference=naive)["references"]) == [("naive", 1, 3e-4)]
    found = run((naive, *both), (1, 2), cells.kept_of, rates=(3e-4, 1e-3), reference=naive)
    assert named(found["references"]) == [("naive", 1, 3e-4)]
    assert found["missing_references"] == [["naive", 2, 3e-4]]


def test_rates_are_never_chosen_by_what_the_gate_judges_by(run: Run) -> None:
    """Held-out documents of one half alone leave nothing to choose by."""
    few = replace(run.streams.tuning.stages[0], heldout=run.streams.stream.fixed[0])
    streams = replace(run.streams, tuning=replace(run.streams.tuning, stages=(few,)))
    with pytest.raises(inputs.Missing, match=r"choose a learning rate by: .*novels-en 1.* each set needs 3"):
        replace(run, streams=streams)(run.arms[:1], (1,), here)


def test_rates_are_chosen_on_select_alone(streams: lineup.Streams) -> None:
    """The halves make up no other stream: the cells that are tuned on it keep their names."""
    stream, counts = lineup.tuned(streams.tuning)
    sides = [eval_side(one, "causal-lm").column("half") for one in stream.chosen_by]
    assert {side for each in sides for side in each} == {"select"}
    assert [len(each) for each in sides] == list(counts.values())
    assert stream.hashes() == streams.tuning.hashes()


def test_reordered_domains_are_the_same_the_other_way_round_and_tuned_on_the_same_stream(tmp_path: Path) -> None:
    model, data = models.llama(tmp_path / "llama", chat=True), worlds.lm_data(tmp_path / "data")
    texts = [domains.Texts(model, data, tmp_path / part, domains.PRESETS["smoke"]) for part in ("one", "other")]
    there, back = domains.domain_streams(texts[0]), domains.reordered_streams(texts[1])
    assert back.tuning.hashes() == there.tuning.hashes()
    assert [one.source.name for one in back.stream.stages] == [one.source.name for one in there.stream.stages][::-1]
    assert sorted(back.stream.hashes()) == sorted(there.stream.hashes())


def test_the_rates_that_are_tried_name_no_cell_anew() -> None:
    arm = arm_of(classes.ARMS, "mos")
    assert arm.first_rates != arm.rates
    assert arm.facts() == replace(arm, rates=arm.first_rates, first_rates=None).facts()
    assert replace(arm, first_rates=None).facts() != arm.facts()


def test_an_arm_or_a_part_that_a_preset_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells would be carried out and stand in no result."""
    for option in (["--arm", "mos"], ["--part", "reordered"]):
        with pytest.raises(SystemExit):
            domains.main(["--preset", "quick", *option])
        assert f"{option[0]}: quick has " in capsys.readouterr().err


@pytest.mark.parametrize("module", [domains, classes, sft])
def test_what_is_not_there_is_named_before_anything_is_done(
    tmp_path: Path, module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model, and then the data, that of the last part too."""
    options = ["--preset", "smoke", "--results", str(tmp_path / "results"), "--data", str(tmp_path / "data")]
    assert module.main([*options, "--model", str(tmp_path / "model")]) == 1
    assert f"{tmp_path}/model/config.json is not there" in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    for path in inputs.model_files(tmp_path / "model"):
        path.touch()
    needed = list(worlds_needs(module, tmp_path))
    for path in needed[:-1]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert module.main([*options, "--model", str(tmp_path / "model")]) == 1
    assert f"{needed[-1]} is not there" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def worlds_needs(module: Any, folder: Path) -> Sequence[Path]:
    """The data that the smoke preset reads, in order; there are as many years as it takes."""
    year = folder / "data" / domains.TEMPORAL
    year.mkdir(parents=True)
    for name in ("1993", "1994", "1995"):
        (year / f"{name}.train.jsonl").touch()
    found = module.GRID.needs(folder / "model", folder / "data", module.PRESETS["smoke"])
    return [path for path in found if path.is_relative_to(folder / "data")]


def test_a_preset_is_run_by_one_at_a_time(tmp_path: Path) -> None:
    with grid.alone(tmp_path), pytest.raises(grid.Busy, match="another run"), grid.alone(tmp_path):
        pass
    with grid.alone(tmp_path):
        pass


def test_a_grid_writes_what_it_did_beside_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CACHE", tmp_path / "cache")
    told = Told("new")

    def measure(model: Path, data: Path, preset: Any, *, carry: cells.Carry) -> Record:
        made = carry([told], tmp_path / "cache" / "told" / preset.name)
        return {"families": {"tuning": [], "cells": [one for one in made if one], "references": []}}

    monkeypatch.setattr(grid, "carry_out_all", here)
    (tmp_path / "told-smoke.json").write_text(
        json.dumps({"machine": ON, "families": {"cells": [{"key": "k", "commit": "c"}]}})
    )
    preset = replace(sft.PRESETS["smoke"])
    made = grid.Grid(name="told", presets={"smoke": preset}, measure=measure, needs=lambda *_: (), arms=sft.ARMS)
    assert grid.main(made, ["--preset", "smoke", "--results", str(tmp_path), "--arm", "naive"]) == 0
    found = json.loads((tmp_path / "told-smoke.json").read_text())
    assert [one["cell"] for one in found["families"]["cells"]] == [{"arm": "new"}]
    assert found["earlier"] == [{"key": "k", "commit": "c"}]
    assert harness.machine()["torch"] == found["machine"]["torch"]
