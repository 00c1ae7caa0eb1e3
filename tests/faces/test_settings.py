"""From what a user wrote to settings, or to one line about the first thing that is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import daemon_settings
from orchestrator.assignments import SHORT_FORMS, put
from orchestrator.cli import configuration
from orchestrator.cli.streams import assemble
from orchestrator.errors import BadInput
from orchestrator.service import settings
from orchestrator.settings import StreamSettings
from strategies.settings import Json
from tests.faces.face import Face

BASE = {"name": "news", "model": "m"}
FLAGS = dict.fromkeys(("--model", "--task", "--source", "--strategy"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"training": {"learning_rat": 1}}, "unknown key training.learning_rat; did you mean training.learning_rate?"),
        ({"strategi": "auto"}, "unknown key strategi; did you mean strategy?"),
        ({"triggers": [{"kind": "cron", "crom": "x"}]}, "unknown key triggers.0.crom; did you mean triggers.0.cron?"),
        ({"strategy": "retrian"}, "strategy.name: 'retrian' is not one of"),
        ({"task": "sftt"}, "did you mean sft?"),
        (
            {"resources": {"priority": 1001}},
            "resources.priority: 1001 is not valid: should be less",
        ),
        ({"split": {"heldout": 0.7}}, "split.heldout: 0.7 is not valid: should be less than 0.5"),
        ({"format": 2}, "format 2 is not known to this Rekindle"),
        ({"zzzz": 1}, "valid keys here: anchor, budget"),
        (
            {"name": "News"},
            "name: 'News' is not valid: use small letters, digits, dot, dash and underscore, at most 63",
        ),
        ({"training": {"max_steps": 10**23}}, "is not valid: should be less than or equal to 1000000000"),
        ({"training": {"train_batch_size": 10**12}}, "is not valid: should be less than or equal to 1048576"),
        ({"training": {"max_length": 10**8}}, "is not valid: should be less than or equal to 16777216"),
        ({"resources": {"cpus": 10**5}}, "resources.cpus: 100000 is not valid: should be less than or equal to 4096"),
        ({"strategy": {"probe": {"budget": 1e308}}}, "strategy.probe.budget: 1e+308 is not valid"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_nearest_valid_one(more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        settings.parse({**BASE, **more})
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_short_forms_and_dotted_changes_meet() -> None:
    changed = settings.with_changes({**BASE, "strategy": "auto"}, {"strategy.name": "naive", "gate.mode": "record"})
    parsed = settings.parse(changed)
    assert (parsed.strategy.name, parsed.gate.mode) == ("naive", "record")


@pytest.mark.parametrize(
    ("changes", "schedule"),
    [
        ({"strategy.schedule": "infinite"}, "infinite"),
        ({"strategy.schedule": "infinite", "strategy.schedule.anneal": 0.2}, {"kind": "infinite", "anneal": 0.2}),
        ({"strategy.schedule.kind": "infinite"}, {"kind": "infinite"}),
        ({"strategy.schedule.kind": "cosine"}, {"kind": "cosine", "warmup_start": "eta_min"}),
    ],
)
def test_another_kind_begins_a_screw_anew(changes: dict[str, Any], schedule: Any) -> None:
    before = {"schedule": {"kind": "cosine", "warmup_start": "eta_min"}}
    assert settings.with_changes({**BASE, "strategy": before}, changes)["strategy"] == {"schedule": schedule}


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"mixing": {"kind": "replay", "shar": 0.1}}, "unknown key strategy.mixing.shar; did you mean"),
        ({"mixing": {"kind": "replay", "share": 2}}, "strategy.mixing.share: 2 is not valid"),
        ({"schedule": {"kind": "infinite", "style": "x"}}, "strategy.schedule.style: 'x' is not one of"),
        ({"selection": "hal"}, "strategy.selection: 'hal' is not one of all, half, adapter; did you mean half?"),
    ],
)
def test_a_screw_that_is_wrong_is_named_without_its_kind(strategy: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        settings.parse({**BASE, "strategy": strategy})
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "key 'a' is there twice (line 2)"),
        ("a: &x [1]\nb: *x\n", "aliases are not taken"),
        ("!!python/object/apply:os.system ['id']\n", "could not determine a constructor"),
        ("a: [1\n", "line 2"),
        ("- a\n", "holds no mapping"),
        ("1: x\n", "key 1 is not text"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: [" + "1," * 30_000 + "]", "too large"),
        ("a: " + "x" * 300_000, "larger than"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_at_once(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "stream.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(BadInput, match=r".*") as caught:
        configuration.read_file(path)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert time.process_time() - begun < 2


@given(st.binary(max_size=300))
def test_any_bytes_are_a_mapping_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    said = ""
    try:
        found: object = configuration.read_file(path)
    except BadInput as error:
        found, said = {}, error.message
    assert isinstance(found, dict)
    assert "\n" not in said


@pytest.mark.parametrize(("written", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1.5d", 129600)])
def test_intervals_are_read_with_their_unit(written: str, seconds: float) -> None:
    assert configuration.read_interval(written) == seconds


def test_relative_paths_are_meant_from_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "base").mkdir()
    file = tmp_path / "conf" / "news.yaml"
    file.write_text("model: ../base\nsource: inbox\nanchor: a.jsonl\nevaluations: {fixed: f.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    made, origins = assemble(
        "news", {**FLAGS, "--source": "here"}, cron=None, every=None, config=file, assign=["publish.directory=out"]
    )
    assert made["anchor"] == str(tmp_path / "conf" / "a.jsonl")
    assert made["evaluations"] == {"fixed": str(tmp_path / "conf" / "f.jsonl")}
    assert made["source"] == {"uri": str(tmp_path / "here")}
    assert made["publish"] == {"directory": str(tmp_path / "out")}
    assert (origins["anchor"], origins["source.uri"], origins["publish.directory"]) == ("file", "--source", "--set")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("source=inbox", {"source": "{base}/inbox"}),
        ("source={uri: inbox, glob: x}", {"source": {"uri": "{base}/inbox", "glob": "x"}}),
        ("evaluations={fixed: f.jsonl}", {"evaluations": {"fixed": "{base}/f.jsonl"}}),
        ("strategy=naive", {"strategy": "naive"}),
    ],
)
def test_a_path_is_found_in_a_word_or_a_mapping_that_is_assigned(written: str, found: Json, tmp_path: Path) -> None:
    made: Json = {}
    configuration.merged(made, [written], tmp_path)
    assert json.dumps(made) == json.dumps(found).replace("{base}", str(tmp_path))


@pytest.mark.parametrize("value", ["org/model", "s3://bucket/x", "hf://datasets/a/b@main"])
def test_hub_ids_and_urls_are_left_alone(tmp_path: Path, value: str) -> None:
    assert configuration.resolve("model", value, tmp_path) == value


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "training.learning_rat=1"], 2, "did you mean training.learning_rate?"),
        (["--cron", "0 3 * *"], 2, "does not parse"),
        (["--cron", "0 3 * * *", "--set", "timezone=Mars/Olympus"], 2, "unknown time zone 'Mars/Olympus'"),
        (["--task", "clasification"], 2, "did you mean classification?"),
        (["--strategy", "retrian"], 2, "did you mean retrain?"),
        (["--set", "anchor=/no/such/file"], 2, "there is no file at /no/such/file"),
        (
            [
                "--set",
                'strategy={"name": "data-mixing", "mixing": {"kind": "weighted", "reweight": {"kind": "agent", '
                '"folder": "/no/such/agent"}}}',
            ],
            2,
            "strategy.mixing.reweight.folder: there is no agent at /no/such/agent: agent.json cannot be read",
        ),
        (["--model", "/no/such/model"], 2, "no model at /no/such/model"),
    ],
)
def test_a_wrong_setting_is_one_line_from_the_daemon_too(
    face: Face, arguments: list[str], code: int, said: str
) -> None:
    model = [] if "--model" in arguments else ["--model", str(face.base())]
    done = face.rekindle("stream", "add", "news", *model, *arguments)
    assert (done.code, said in done.error) == (code, True), done.err
    assert face.data("stream", "list") == []


def test_a_taken_name_is_refused(face: Face) -> None:
    assert face.add_stream("news", "--no-wait").code == 0
    done = face.add_stream("news", "--no-wait")
    assert done.code == 1
    assert "the name 'news' is taken" in done.error


def test_a_dry_run_shows_the_settings_and_registers_nothing(face: Face) -> None:
    shown = face.data("stream", "add", "news", "--model", str(face.base()), "--strategy", "naive", "--dry-run")
    origins = {one["key"]: (one["value"], one["origin"]) for one in shown["settings"]}
    assert origins["strategy.name"] == ("naive", "--strategy")
    assert origins["gate.mode"] == ("enforce", "default")
    assert "no anchor" in shown["warnings"][0]
    assert face.data("stream", "list") == []


@pytest.mark.parametrize(
    ("assigned", "said"),
    [
        ("strategy.selection=half strategy.keep_optimizer=true", "half draws anew what moves"),
        ("timezone=Mars/X", "Mars/X"),
        ("task=sft", "the task is fixed"),
        ("budget.max_hours=.inf", "budget.max_hours: inf is not a finite number"),
        ("strategy.probe.budget=.nan", "strategy.probe.budget: nan is not a finite number"),
        ("triggers=[{kind: interval, every_seconds: 1e12}]", "less than or equal to 315360000"),
        ("evaluations.batch-3=anchor.jsonl", "is not one of Rekindle's own (anchor, batch-N, pool-N)"),
        (
            "strategy=data-mixing strategy.mixing.domains=column source.domain_field=null",
            "strategy.mixing.domains: column needs source.domain_field, the column that names the domains",
        ),
        ("strategy=data-mixing strategy.mixing.weights.foo=0.5", "names foo, which is no domain"),
        (
            "strategy=data-mixing strategy.mixing.reweight.kind=regmix strategy.mixing.reweight.hidden=512",
            "5245440 parameters beside its embeddings, at most 300000",
        ),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_change_is_refused_alike_in_a_dry_run(face: Face, assigned: str, said: str, dry: tuple[str, ...]) -> None:
    face.add_stream("news", "--no-wait")
    assignments = [assigned] if assigned.startswith("triggers") else assigned.split()
    done = face.rekindle("stream", "set", "news", *assignments, *dry)
    assert (done.code, face.data("stream", "show", "news")["revision"]) == (2, 1)
    assert said in done.error


@pytest.mark.parametrize(
    ("written", "found"), [("a: 2020-01-01", {"a": "2020-01-01"}), ("a: 1.5", {"a": 1.5}), ("a: [no]", {"a": [False]})]
)
def test_a_date_stays_text(written: str, found: Json, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(written)
    assert configuration.read_file(tmp_path / "s.yaml") == found


@pytest.mark.parametrize("written", ["a: !!set {b, c}", "a: !!binary aGk="])
def test_what_json_has_no_word_for_is_refused(written: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(written)
    with pytest.raises(BadInput, match="is not taken; write plain text"):
        configuration.read_file(tmp_path / "s.yaml")


def test_a_change_makes_a_revision_and_keeps_older_origins(face: Face) -> None:
    face.add_stream("news", "--no-wait")
    done = face.data("stream", "set", "news", "training.learning_rate=1e-4")
    found = {one["key"]: (one["value"], one["origin"]) for one in done["settings"]}
    assert done["revision"] == 2
    assert found["training.learning_rate"] == (0.0001, "--set")
    assert found["model"][1] == "--model"


@pytest.mark.parametrize("change", ["task=sft", "model=other", "name=other", "anchor=other"])
def test_what_is_fixed_cannot_be_changed(face: Face, change: str) -> None:
    face.add_stream("news", "--no-wait")
    done = face.rekindle("stream", "set", "news", change)
    assert done.code == 2
    assert done.error


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REKINDLE__SERVER__PROT", "1", "did you mean REKINDLE__SERVER__PORT?"),
        ("REKINDLE__SERVRE__PORT", "1", "did you mean REKINDLE__SERVER__PORT?"),
        ("REKINDLE__SERVER__PORT", "many", "REKINDLE__SERVER__PORT: should be a valid integer"),
        ("REKINDLE__LOGGING__LEVEL", "LOUD", "REKINDLE__LOGGING__LEVEL"),
    ],
)
def test_a_wrong_variable_stops_the_daemon(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput) as caught:
        daemon_settings.load()
    assert said in caught.value.message


def test_flags_go_before_the_environment_and_that_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKINDLE__SERVER__PORT", "7500")
    monkeypatch.setenv("REKINDLE__RESOURCES__GPUS", "[0, 2]")
    found = daemon_settings.load({"server": {"host": "::1", "port": None}})
    assert (found.server.host, found.server.port, found.resources.gpus) == ("::1", 7500, (0, 2))
    assert daemon_settings.load({"server": {"port": 1}}).server.port == 1


def choices(node: Json, definitions: Json, path: str = "") -> Iterator[str]:
    """Dotted keys, one of whose values is a choice by ``kind``."""
    if "$ref" in node:
        yield from choices(definitions[node["$ref"].rpartition("/")[2]], definitions, path)
    if "discriminator" in node:
        yield path
    for one in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from choices(one, definitions, path)
    for name, one in node.get("properties", {}).items():
        yield from choices(one, definitions, f"{path}.{name}".lstrip("."))


def test_every_choice_may_be_a_word_that_more_is_assigned_to() -> None:
    schema = StreamSettings.model_json_schema()
    found = set(choices(schema, schema["$defs"]))
    assert {"strategy.mixing", "strategy.consolidation.method"} <= found
    assert {key for key in SHORT_FORMS if SHORT_FORMS[key] == "kind"} == found


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ({"consolidation": {"kind": "merge", "method": "ties"}}, "method.density", 0.5),
        ({"consolidation": {"kind": "merge", "method": {"kind": "lines", "beta": 1, "after": "ties"}}}, "", None),
    ],
)
def test_a_merge_by_name_is_as_good_as_one_by_kind(word: Json, key: str, value: Any) -> None:
    given: Json = {"strategy": {"name": "naive", **word}}
    if key:
        put(given, f"strategy.consolidation.{key}", value)
    assert settings.parse({**BASE, **given}).strategy.consolidation is not None


def test_an_agents_folder_is_meant_from_where_the_file_lies(tmp_path: Path) -> None:
    given = {"strategy": {"mixing": {"reweight": {"kind": "agent", "folder": "agent"}}}}
    found = configuration.resolve_paths(given, tmp_path)
    assert found["strategy"]["mixing"]["reweight"] == {"kind": "agent", "folder": str(tmp_path / "agent")}
