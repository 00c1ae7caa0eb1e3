"""The main job through the command line, and the shapes that scripts rely on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.flow.backtest import HELD_S
from storage.tables import EvalSet
from strategies.agent.trajectories import read
from tests.faces.face import COMMAND, Face, heed_interrupts
from tests.flow.harness import NEW, write_documents

VERSION = {"number", "state", "strategy", "parents", "job", "batches", "created_at", "scores"}
JOB = {"id", "stream", "kind", "state", "attempt", "progress", "error"}
BATCH = {"id", "stream", "state", "documents", "duplicates", "quarantined", "content_hash"}
EVALUATION = {"version", "eval_set", "metric", "value", "examples"}


def test_versions_are_an_array_of_objects_with_the_documented_fields(story: Face) -> None:
    rows = story.data("version", "list", "news")
    assert [row["number"] for row in rows] == [1, 2]
    assert all(row.keys() >= VERSION for row in rows)
    assert [row["state"] for row in rows] == ["retired", "live"]
    assert rows[1]["parents"] == [1]
    assert rows[1]["scores"].keys() >= {"anchor"}


def test_the_trained_version_names_its_job_and_its_batches(story: Face) -> None:
    row = story.data("version", "list", "news")[1]
    batches = {one["id"] for one in story.data("batch", "list", "news") if one["kind"] == "data"}
    assert set(row["batches"]) == batches
    assert story.data("job", "show", str(row["job"]))["kind"] == "train"


def test_a_version_may_be_named_in_three_ways(story: Face) -> None:
    numbers = [story.data("version", "show", name)["number"] for name in ("news", "news/1", "news@live")]
    assert numbers == [2, 1, 2]


def test_jobs_have_the_documented_fields(story: Face) -> None:
    rows = story.data("job", "list", "news")
    assert rows
    assert all(row.keys() >= JOB for row in rows)
    assert {row["kind"] for row in rows} >= {"measure", "train", "evaluate"}


def test_a_batch_says_what_was_kept_dropped_and_quarantined(story: Face) -> None:
    row = next(one for one in story.data("batch", "list", "news") if one["kind"] == "data")
    assert row.keys() >= BATCH
    assert (row["documents"], row["duplicates"], row["quarantined"]) == (40, 1, 1)
    shown = story.data("batch", "show", str(row["id"]))
    assert shown["quarantine"][0]["line"] == 42
    assert shown["versions"] == [2]


def test_the_matrix_is_an_array_of_evaluations(story: Face) -> None:
    rows = story.data("version", "matrix", "news")
    assert all(row.keys() >= EVALUATION for row in rows)
    assert {(row["version"], row["eval_set"]) for row in rows} >= {(1, "anchor"), (2, "anchor")}


def test_the_matrix_for_people_has_eval_sets_down_and_versions_across(story: Face) -> None:
    lines = story.rekindle("version", "matrix", "news").out.splitlines()
    assert lines[0].split() == ["EVAL", "SET", "METRIC", "1", "2"]
    assert lines[1].startswith("anchor")


def test_every_setting_is_shown_with_its_origin(story: Face) -> None:
    shown = story.data("stream", "show", "news")
    origins = {one["key"]: one["origin"] for one in shown["settings"]}
    assert origins["model"] == "--model"
    assert origins["anchor"] == "--set"
    assert origins["triggers"] == "--every"
    assert origins["gate.mode"] == "default"
    assert shown["live"] == 2
    assert shown["triggers"][0]["next_fire"]


def test_the_decision_explains_itself(story: Face) -> None:
    row = story.data("decision", "list", "news")[0]
    shown = story.data("decision", "show", str(row["id"]))
    assert (shown["result"], shown["version"]) == ("promoted", 2)
    assert shown["reason"]
    assert shown["verdict"]["outcome"] == "pass"
    assert shown["signals"]


def test_the_lineage_is_a_tree(story: Face) -> None:
    assert story.rekindle("version", "lineage", "news").out.splitlines()[1].startswith("└─ news/2  live")
    assert [row["parents"] for row in story.data("version", "lineage", "news")] == [[], [1]]
    assert [row["number"] for row in story.data("version", "lineage", "news/1")] == [1, 2]


def test_a_comparison_shows_data_settings_scores_and_flips(story: Face) -> None:
    shown = story.data("version", "compare", "news/1", "news/2")
    assert shown["data"]["only_b"] == story.data("version", "list", "news")[1]["batches"]
    assert "strategy.name" in {one["key"] for one in shown["settings"]}
    fresh = next(one for one in shown["flips"] if one["eval_set"].startswith("batch-"))
    assert fresh["positive"] == fresh["documents"]
    assert fresh["examples"][0]["direction"] == "better"
    assert any(word in fresh["examples"][0]["excerpt"] for word in NEW.split())


def test_job_logs_can_be_read_and_followed_to_their_end(story: Face) -> None:
    job = str(story.data("version", "list", "news")[1]["job"])
    assert story.rekindle("job", "logs", job).code == 0
    followed = story.rekindle("job", "logs", "-f", job)
    assert followed.code == 0
    assert story.data("job", "logs", job)["text"] == followed.out


def test_an_export_is_a_plain_folder_and_never_overwrites(story: Face) -> None:
    target = story.root / "export"
    done = story.data("version", "export", "news@live", str(target))
    assert done["form"] == "model"
    assert json.loads((target / "config.json").read_text())["model_type"] == "toy"
    files = [path.stat() for path in target.iterdir()]
    assert {(one.st_nlink, one.st_mode & 0o777) for one in files} == {(1, 0o644)}
    again = story.rekindle("version", "export", "news", str(target))
    assert again.code == 1
    assert "not empty" in again.error


def test_a_version_without_adapter_is_not_exported_as_one(story: Face) -> None:
    done = story.rekindle("version", "export", "news", str(story.root / "adapter"), "--as-adapter")
    assert done.code == 1
    assert "has no adapter" in done.error


def test_an_evaluation_on_a_file_prints_its_score_alone(story: Face) -> None:
    file = write_documents(story.root / "questions.jsonl", NEW, 10)
    (row,) = story.data("evaluate", "news/1", "--data", str(file))
    assert row.keys() >= EVALUATION
    assert (row["version"], row["eval_set"]) == (1, "file:questions.jsonl")


def test_an_evaluation_prints_what_is_there_already(story: Face) -> None:
    assert {row["eval_set"] for row in story.data("evaluate", "news")} >= {"anchor"}


def test_a_dry_merge_shows_what_would_be_merged(story: Face) -> None:
    shown = story.data("merge", "news/1", "news/2", "--weight", "1", "--weight", "3", "--dry-run")
    assert (shown["method"], shown["base"], shown["parents"], shown["weights"]) == ({"kind": "soup"}, 1, [1, 2], [1, 3])
    assert shown["job"] is None
    told = story.rekindle("merge", "news/1", "news/2", "--method", "interpolate", "--set", "share=0.3", "--dry-run")
    assert "interpolate (share 0.3)" in told.out
    assert "news/1, news/2 (weight 1)" in told.out
    half = story.data("merge", "news/1", "news/2", "--method", "half-reset", "--set", "seed=3", "--dry-run")
    assert half["method"] == {"kind": "half-reset", "names": None, "seed": 3}
    assert story.data("merge", "news/1", "news/2", "--into", "model", "--dry-run")["into"] == "model"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("news/1",), "at least two versions"),
        (("news/1", "other/2"), "are of different streams"),
        (("news/1", "news@live"), "names no version number"),
        (("news/1", "news/2", "--method", "tise"), "did you mean ties?"),
        (("news/1", "news/2", "--method", "ties", "--set", "densty=0.3"), "did you mean density?"),
        (("news/1", "news/2", "--set", "density"), "is no assignment"),
        (("news/1", "news/2", "--into", "adapter"), "version 1 is no adapter; merge into a model"),
        (("news/1", "news/2", "--into", "adapter", "--method", "fisher"), "fisher merges full models"),
        (("news/1", "news/2", "--into", "bank"), "'bank' is not one of 'model', 'adapter'"),
    ],
)
def test_a_merge_that_makes_no_sense_is_one_line(story: Face, arguments: tuple[str, ...], said: str) -> None:
    done = story.rekindle("merge", *arguments)
    assert done.code == 2
    assert said in done.error


def test_metrics_count_what_is_there(story: Face) -> None:
    status, text = story.call("GET", "/metrics")
    assert status == 200
    assert 'rekindle_live_version{stream="news"} 2.0' in text
    assert 'rekindle_streams{state="active"} 1.0' in text


def test_a_retrain_that_the_gate_refuses_exits_with_three(working: Face) -> None:
    working.add_stream("news", "--set", "gate.repair=false")
    working.rekindle("ingest", "news", str(write_documents(working.root / "a.jsonl", NEW, 40)))
    done = working.rekindle("retrain", "news", "--strategy", "naive", "--wait", "--output", "json")
    assert done.code == 3
    assert "the gate refused news/2" in done.error
    assert json.loads(done.out)["result"] == "refused"
    forced = working.rekindle("version", "promote", "news/2", "--reason", "looks fine")
    assert forced.code == 3


def test_a_rollback_makes_the_earlier_version_live_and_holds_the_batches(working: Face) -> None:
    working.add_stream()
    working.rekindle("ingest", "news", str(write_documents(working.root / "a.jsonl", NEW, 40)))
    assert working.rekindle("retrain", "news", "--wait").code == 0
    done = working.data("rollback", "news", "--reason", "worse answers")
    assert (done["live"], done["previous"]) == (1, 2)
    (held,) = done["held"]
    assert working.data("batch", "show", str(held))["state"] == "held"
    (released,) = working.data("stream", "release-batches", "news")
    assert released["state"] == "pending"


def test_a_dry_run_decides_nothing(working: Face) -> None:
    working.add_stream()
    working.rekindle("ingest", "news", str(write_documents(working.root / "a.jsonl", NEW, 40)))
    preview = working.data("retrain", "news", "--dry-run")
    assert preview["strategy"] == "rewarm-replay"
    assert working.data("decision", "list", "news") == []


def test_a_dry_run_says_of_a_setting_what_the_stream_says(working: Face) -> None:
    working.add_stream("news", "--set", "training.tuner=full")
    working.rekindle("ingest", "news", str(write_documents(working.root / "a.jsonl", NEW, 40)))
    origins = {one["key"]: one["origin"] for one in working.data("stream", "show", "news")["settings"]}
    values = working.data("retrain", "news", "--dry-run")["values"]
    assert (values["tuner"]["value"], values["tuner"]["origin"]) == ("full", origins["training.tuner"])
    assert (values["batch"]["origin"], origins["training.tuner"]) == ("default", "--set")


def test_a_removed_stream_frees_its_name_and_keeps_its_lineage(working: Face) -> None:
    working.add_stream()
    assert working.data("stream", "remove", "news", "--purge")["state"] == "archived"
    assert working.data("stream", "list") == []
    assert [row["number"] for row in working.data("version", "list", "news")] == [1]
    assert not (working.app.home.published / "news" / "live").exists()
    assert working.add_stream().code == 0


def test_a_failed_registration_is_one_line(working: Face) -> None:
    broken = working.base() / "model.safetensors"
    broken.write_bytes(b"nonsense")
    done = working.rekindle("stream", "add", "news", "--model", str(broken.parent))
    assert done.code in (1, 2)
    assert done.error


def test_a_backup_lies_where_it_was_asked_for(story: Face) -> None:
    done = story.data("backup", str(story.root / "backup"))
    assert Path(done["database"]).is_file()
    assert done["objects"] > 0


def test_gc_says_what_it_would_do(story: Face) -> None:
    assert story.data("gc", "--dry-run")["dry_run"] is True


def test_an_evaluation_on_trained_documents_scores_all_and_guards_nothing(working: Face) -> None:
    working.add_stream()
    file = write_documents(working.root / "a.jsonl", NEW, 40)
    working.rekindle("ingest", "news", str(file))
    (row,) = working.data("evaluate", "news/1", "--data", str(file))
    assert (row["eval_set"], row["examples"]) == ("file:a.jsonl", 40)
    copy = shutil.copy(file, working.root / "b.jsonl")
    (again,) = working.data("evaluate", "news/1", "--data", str(copy))
    assert again["eval_set"] == "file:a.jsonl"
    (working.root / "other").mkdir()
    other = write_documents(working.root / "other" / "a.jsonl", NEW, 20)
    assert working.data("evaluate", "news/1", "--data", str(other))[0]["examples"] == 20
    with working.app.database.read() as session:
        assert [one.active for one in session.query(EvalSet) if one.name == "file:a.jsonl"] == [False, False]


def test_an_operator_measures_but_names_no_file_of_the_daemons_machine(story: Face) -> None:
    token = story.new_token("operator")
    path = "/api/v1/streams/news/versions/live/evaluate"
    assert story.call("POST", path, body={}, token=token)[0] == 200
    status, said = story.call("POST", path, body={"data": "/etc/hostname"}, token=token)
    assert (status, "role admin" in said["error"]["message"]) == (403, True)


def test_every_trained_version_has_a_trajectory_that_an_agent_can_learn_from(story: Face, tmp_path: Path) -> None:
    out = tmp_path / "real.jsonl"
    assert story.data("mixing", "export", "news/2", "news@live", "--out", str(out))["trajectories"] == 2
    first, second = read(out)
    assert first == second
    scores = {one: story.data("version", "show", f"news/{one}")["scores"] for one in (1, 2)}
    assert [one.name for one in first.domains if one.new] == [first.names[0]]
    assert first.names[1] == "anchor"
    assert first.total == 1
    assert first.steps[0].weights[0] > 0.5
    assert first.start[0] > first.steps[0].losses[0], (first, scores)
    refused = story.rekindle("mixing", "export", "news/1", "--out", str(out))
    assert "news/1 has no trajectory" in refused.error


def test_a_backtest_that_cannot_run_says_why_and_leaves_its_traces(story: Face) -> None:
    done = story.rekindle("stream", "backtest", "news", "--set", "resources.gpus=3")
    assert done.code == 1
    assert done.out.count("asks for 3 GPUs") == 2
    scratch = next(one["name"] for one in story.data("stream", "list") if one["name"] != "news")
    assert done.error.startswith(f"the replay has failed; {scratch} stays")
    assert story.rekindle("stream", "remove", scratch, "--purge").code == 0


def test_an_interrupted_backtest_goes_on_and_has_one_caller_at_a_time(story: Face) -> None:
    command = ("stream", "backtest", "news", "--set", "strategy.name=naive", "--set", "gate.mode=record")
    running = subprocess.Popen(
        [*COMMAND, *command],
        env={**os.environ, "REKINDLE_HOME": str(story.app.home.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert running.stderr is not None
    running.stderr.readline()
    assert "another `rekindle stream backtest` is at news.backtest-" in story.rekindle(*command).error
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1].splitlines()[-1]
    assert (running.returncode, len(story.data("stream", "list"))) == (130, 2)
    assert "stays: the same command goes on from there" in said
    time.sleep(HELD_S)
    assert story.rekindle(*command, timeout_s=240).code == 0
    assert [one["name"] for one in story.data("stream", "list")] == ["news"]
