"""The service layer by itself: both databases, merged exports, tables on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import Conflict
from orchestrator.service.commands import exports, maintenance
from orchestrator.service.names import VersionName, parse_version_name
from orchestrator.service.views import batches, comparison, daemon, decisions, jobs, streams, triggers, versions
from storage import chain, manifests
from storage.database import Database
from storage.tables import Version, VersionArtifact
from tests.faces.face import COMMAND, Face
from tests.faces.rows import ID, add_stream
from tests.flow.harness import NEW, Daemon
from tests.models import llama
from tests.storage import rows


@pytest.mark.parametrize("text", ["a/0", "a/-1", "a/1/2", "a@dead", "A", "", "a/", "../a", "a/1\n", "a" * 64])
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="does not name a version"):
        parse_version_name(text)


def test_every_view_answers_alike_on_both_databases(tmp_path: Path, database: Database) -> None:
    made = Daemon(tmp_path, database)
    try:
        made.add_stream(triggers=[{"kind": "interval", "every_seconds": 3600}])
        batch = made.ingest(NEW)
        decision = made.retrain()
        app = made.app
        assert streams.show_stream(app, "s").live == 2
        assert streams.list_streams(app, archived=True, limit=10)[0].next_fire is not None
        assert batches.show_batch(app, batch).versions == (2,)
        assert decisions.show_decision(app, decision.id).result == "promoted"
        assert [one.state for one in jobs.list_jobs(app, stream="s", state="succeeded", limit=1, before=None)] == [
            "succeeded"
        ]
        assert triggers.list_triggers(app, stream=None)[0].stream == "s"
        assert [one.number for one in versions.list_versions(app, "s", limit=10, before=2)] == [1]
        assert [one.number for one in versions.show_lineage(app, VersionName(stream="s"), whole=False)] == [1, 2]
        assert comparison.compare(app, "s", 1, 2).data.only_b == (batch,)
        assert daemon.state_counts(app)["versions"] == {"live": 1, "retired": 1}
        assert maintenance.collect(app, dry_run=True, actor="test").dry_run
    finally:
        made.app.background.close()
        made.engine.close()


def test_a_batch_names_every_version_that_saw_it(face: Face) -> None:
    with face.app.database.write() as session:
        rows.add_stream(session)
        first, second = rows.add_batch(session, "first"), rows.add_batch(session, "second")
        base = rows.add_version(session, 1)
        tuned = rows.add_version(session, 2, (base,))
        later = rows.add_version(session, 3, (tuned,))
        rows.add_use(session, tuned, first)
        rows.add_use(session, tuned, first, role="replayed")
        rows.add_use(session, later, second)
    assert batches.show_batch(face.app, first.id).versions == (2, 3)
    assert batches.show_batch(face.app, second.id).versions == (3,)


def adapter_of(base: Path, folder: Path) -> Path:
    """A low-rank adapter that changes what the base says."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    made = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_B" in name:
                value.fill_(0.5)
    made.save_pretrained(folder)
    return folder


def add_adapted_version(face: Face, base: Path, adapter: Path) -> None:
    """Version 1 of stream news: a base with an adapter on top."""
    stored = {"answer/model": face.app.store.add_folder(base), "answer/adapter": face.app.store.add_folder(adapter)}
    with face.app.database.write() as session:
        add_stream(session)
        for manifest in stored.values():
            manifests.register(session, manifest)
        values = {
            "stream_id": ID,
            "number": 1,
            "state": "live",
            "strategy": "naive",
            "model_hash": "m" * 64,
            "facts": {},
        }
        version = chain.append(session, Version(**values))
        for role, manifest in stored.items():
            session.add(VersionArtifact(version_id=version.id, role=role, manifest_hash=manifest.hash))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_is_merged_into_a_plain_folder_or_exported_alone(face: Face, tmp_path: Path) -> None:
    import torch
    import transformers

    base = llama(tmp_path / "llama")
    adapter = adapter_of(base, tmp_path / "adapter")
    add_adapted_version(face, base, adapter)
    name = VersionName(stream="news")
    merged = exports.export(face.app, name, tmp_path / "merged", as_adapter=False, actor="test")
    alone = exports.export(face.app, name, tmp_path / "alone", as_adapter=True, actor="test")
    assert (merged.form, alone.form) == ("merged model", "adapter")
    assert json.loads((tmp_path / "alone" / "adapter_config.json").read_text())["r"] == 2
    before = transformers.AutoModelForCausalLM.from_pretrained(base).state_dict()
    after = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}
    with pytest.raises(Conflict, match="not empty"):
        exports.export(face.app, name, tmp_path / "merged", as_adapter=False, actor="test")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_of_two_exports_to_one_folder_one_is_whole_and_the_other_is_told(face: Face, tmp_path: Path) -> None:
    base = llama(tmp_path / "llama")
    add_adapted_version(face, base, adapter_of(base, tmp_path / "adapter"))
    into = tmp_path / "out" / "merged"

    def export(_number: int) -> str:
        try:
            return exports.export(face.app, VersionName(stream="news"), into, as_adapter=False, actor="test").form
        except Conflict as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        done = sorted(pool.map(export, range(2)), key=len)
    assert done == ["merged model", f"{into} is there already and not empty; choose another folder"]
    assert (into / "model.safetensors").exists()
    assert [one.name for one in into.parent.iterdir()] == ["merged"]


def on_terminal(face: Face, *arguments: str) -> str:
    """What a command writes to a terminal."""
    master, slave = pty.openpty()
    environment = {**os.environ, "REKINDLE_HOME": str(face.app.home.root), "COLUMNS": "120", "TERM": "xterm"}
    running = subprocess.Popen([*COMMAND, *arguments], stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    written = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(master)
    assert running.wait(timeout=60) == 0, written
    return written.decode()


def test_a_table_is_drawn_on_a_terminal_and_markup_is_text(face: Face) -> None:
    with face.app.database.write() as session:
        add_stream(session, name="red")
    shown = on_terminal(face, "stream", "show", "red")
    assert "SETTING" in shown
    assert "training.learning_rate" in shown


def test_waiting_shows_progress_on_a_terminal(working: Face) -> None:
    from tests.flow.harness import write_documents

    working.add_stream()
    working.rekindle("ingest", "news", str(write_documents(working.root / "a.jsonl", NEW, 40)))
    shown = on_terminal(working, "retrain", "news", "--wait")
    assert "news/2 is live" in shown
    assert " job " in shown


def test_strategies_are_listed_and_shown_screw_by_screw(face: Face) -> None:
    names = [one["name"] for one in face.data("strategy", "list")]
    assert names == ["auto", "naive", "retrain", "rewarm-replay", "half-finetune", "data-mixing", "mos"]
    shown = face.data("strategy", "show", "half-finetune")
    assert shown["composition"]["selection"] == {"kind": "half", "level": "category", "pairing": "auto"}
    assert "half (level category, pairing auto)" in face.rekindle("strategy", "show", "half-finetune").out
    chooser, table = face.rekindle("strategy", "show", "auto").out, face.data("strategy", "show", "auto")["rules"]
    assert [one["choice"] for one in table][-1] == "rewarm-replay"
    assert all({"name", "when", "choice", "source"} == set(one) and all(one.values()) for one in table)
    assert "naive where there is neither an anchor nor an earlier batch (nothing to replay" in chooser
    bank = face.rekindle("strategy", "show", "mos").out
    assert "adapter (head_rate 10, pooling mean)" in bank
    assert "align (epochs 30, batches 5," in bank
    assert "choose one of auto" in face.rekindle("strategy", "show", "magic").error
