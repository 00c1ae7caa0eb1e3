"""The demonstration, step by step: every command that it runs is shown, and is the real one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule

from orchestrator.demo import corpus
from orchestrator.demo.shell import DemoError, Shell
from orchestrator.demo.watch import Record, Watcher, bars
from orchestrator.errors import RekindleError

STREAM = "library"
EVERY_S = 5
ENGLISH_CHARS = 450_000
BATCH_CHARS = 150_000
BASE_STEPS = 360
SETTINGS = """\
format: 1
name: {stream}
task: causal-lm
model: {base}
source:
  uri: {incoming}
  poll_seconds: 1
  settle_seconds: 1
anchor: {anchor}
split:
  heldout: 0.2
strategy: rewarm-replay
gate:
  repair: false
triggers:
  - kind: interval
    every_seconds: {every_s}
training:
  train_batch_size: 8
"""
TOLD = {
    "docs": "docstrings of the standard library: English in another voice",
    "code": "bare Python source: far from prose",
    "letters": "names of the characters of Unicode: far from both",
}


def run(home: Path | None = None, keep: bool = False) -> int:
    """Tell the whole story; 0 if all went as told, 1 if not. Ctrl-C stops everything and removes what was made."""
    console = Console()
    made_here = home is None
    place = Path(tempfile.mkdtemp(prefix="rekindle-demo-")) if home is None else home
    place.mkdir(parents=True, exist_ok=True)
    shell = Shell(place, console)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        Story(shell).tell()
        _close(shell, keep=keep, took_s=time.monotonic() - started)
    except KeyboardInterrupt:
        console.print("\nStopping: jobs are cancelled, the daemon ends.")
        shell.stop_daemon()
        if made_here:
            shutil.rmtree(place, ignore_errors=True)
        return 130
    except (RekindleError, OSError, subprocess.SubprocessError, ValueError) as error:
        shell.stop_daemon()
        console.print(f"[bold red]The demonstration failed:[/] {error}", highlight=False)
        console.print(f"Everything it made is in {place}; the daemon's log is under logs/.", soft_wrap=True)
        return 1
    return 0


class Story:
    """The steps, in order; each leaves the stream as the next one needs it."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._console = shell.console
        self._watcher = Watcher(shell, STREAM)
        self._texts = shell.home / "texts"
        self._incoming = shell.home / "incoming"
        self._base = shell.home / "base"

    def tell(self) -> None:
        """All steps."""
        self._write_texts()
        self._train_base()
        self._register()
        self._arrive("docs")
        self._arrive("code")
        self._refuse("letters")
        self._retry_with_replay()
        self._roll_back()

    def _write_texts(self) -> None:
        self._head("Text: what this Python installation carries")
        self._texts.mkdir(exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        for domain in corpus.DOMAINS:
            chars = ENGLISH_CHARS if domain == "english" else BATCH_CHARS
            documents = corpus.write(domain, self._texts / f"{domain}.jsonl", chars=chars)
            told = TOLD.get(domain, "the language reference: what the base model knows")
            self._console.print(f"  {domain:<8} {documents:>4} documents   {told}", highlight=False, soft_wrap=True)

    def _train_base(self) -> None:
        self._head("A small base model, trained from nothing on the English text")
        command = [
            sys.executable,
            "-P",
            "-m",
            "strategies.pretrain",
            str(self._texts / "english.jsonl"),
            str(self._base),
        ]
        # One thread: on a busy machine, threads that wait for each other take many times as long.
        threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        log = self._shell.home / "pretrain.log"
        with log.open("wb") as errors, bars(self._console) as progress:
            task = progress.add_task("pretrain", total=BASE_STEPS, facts="starting")
            process = subprocess.Popen(
                [*command, "--steps", str(BASE_STEPS)], env=os.environ | threads, stdout=subprocess.PIPE, stderr=errors
            )
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said = json.loads(line)
                    facts = f"loss {said['loss']:.3f}" if "loss" in said else said["phase"]
                    progress.update(task, completed=said["step"], facts=facts)
                code = process.wait()
            finally:
                process.kill()
        if code != 0:
            raise DemoError(f"the base model could not be trained; {log} says why")

    def _register(self) -> None:
        self._head("The daemon, and a stream with a base model, an anchor and a schedule")
        self._shell.start_daemon()
        settings = self._shell.home / f"{STREAM}.yaml"
        anchor = self._texts / "english.jsonl"
        text = SETTINGS.format(stream=STREAM, base=self._base, incoming=self._incoming, anchor=anchor, every_s=EVERY_S)
        settings.write_text(text, encoding="utf-8")
        self._console.print(text, style="dim", highlight=False)
        self._shell.must("stream", "add", STREAM, "--model", str(self._base), "--config", str(settings))
        self._console.print("Version 1 is the base model; it is measured before anything is decided.")
        self._watcher.until(self._base_is_measured)

    def _base_is_measured(self) -> Record | None:
        versions = self._shell.ask("version", "list", STREAM)
        return versions[0] if versions and "anchor" in versions[0]["scores"] else None

    def _arrive(self, domain: str) -> None:
        self._head(f"A batch arrives: {TOLD[domain]}")
        last = self._last_decision()
        self._drop(domain)
        self._console.print(f"The trigger fires every {EVERY_S} s, and retrains when something new is there.")
        self._must_go_live(self._watcher.until(lambda: self._decision_after(last)))

    def _drop(self, domain: str) -> None:
        """Put the file into the watched folder the way a careful writer does: under another name first."""
        staged = self._incoming.parent / f"{domain}.part"
        shutil.copyfile(self._texts / f"{domain}.jsonl", staged)
        os.replace(staged, self._incoming / f"{domain}.jsonl")
        self._console.print(f"[bold cyan]$[/] [bold]cp texts/{domain}.jsonl incoming/[/]", highlight=False)

    def _must_go_live(self, decision: Record) -> None:
        self._console.print(f"Decision {decision['id']}: {decision['reason']}", highlight=False)
        if decision["result"] != "promoted":
            raise DemoError(f"the candidate should have gone live, but: {decision['outcome']}")
        self._console.print(
            f"[bold green]Live:[/] {STREAM}/{decision['version']}. {decision['outcome']}", highlight=False
        )

    def _refuse(self, domain: str) -> None:
        self._head(f"A batch arrives: {TOLD[domain]} - and is trained on without care")
        self._console.print(
            "A candidate that only forgot would be taken some steps back and judged again; this stream has "
            "gate.repair off, so that a refusal can be seen.",
            soft_wrap=True,
        )
        self._shell.must("trigger", "pause", STREAM)
        self._drop(domain)
        self._watcher.until(self._pending_batch)
        code = self._shell.show("retrain", STREAM, "--strategy", "naive", "--wait")
        self._watcher.ended()
        decision = self._shell.ask("decision", "show", str(self._last_decision()))
        forgot = _forgotten(decision)
        if code != 3 or decision["result"] != "refused" or not forgot:
            raise DemoError(f"the gate should have refused a model that forgot, but: {decision['outcome']}")
        self._console.print("[bold red]Refused:[/] it learned the new text and forgot the old:", highlight=False)
        for name, reason in forgot.items():
            self._console.print(f"  {name}: {reason}", highlight=False)

    def _pending_batch(self) -> Record | None:
        batches = self._shell.ask("batch", "list", STREAM)
        return next((batch for batch in batches if batch["state"] == "pending"), None)

    def _retry_with_replay(self) -> None:
        self._head("The same batch, by the schedule again: re-warmed, with replay of the old")
        last = self._last_decision()
        self._shell.must("trigger", "resume", STREAM)
        self._must_go_live(self._watcher.until(lambda: self._decision_after(last)))

    def _roll_back(self) -> None:
        self._head("What every version scores on everything (loss: lower is better)")
        self._shell.must("version", "matrix", STREAM)
        self._head("One step back")
        self._shell.must("trigger", "pause", STREAM)
        live = self._live()
        began = time.monotonic()
        self._shell.must("rollback", STREAM, "--reason", "demonstration")
        took_s = time.monotonic() - began
        now = self._live()
        if now == live:
            raise DemoError(f"version {live} is still live after the rollback")
        self._console.print(f"[bold green]Live:[/] {STREAM}/{now} instead of {STREAM}/{live}, after {took_s:.2f} s.")
        self._head("Where each version comes from")
        self._shell.must("version", "lineage", STREAM)

    def _live(self) -> int:
        versions = self._shell.ask("version", "list", STREAM)
        return int(next(version["number"] for version in versions if version["state"] == "live"))

    def _last_decision(self) -> int:
        return max((int(decision["id"]) for decision in self._shell.ask("decision", "list", STREAM)), default=0)

    def _decision_after(self, last: int) -> Record | None:
        decisions: list[Record] = self._shell.ask("decision", "list", STREAM)
        return next((one for one in decisions if one["id"] > last and one["closed_at"] is not None), None)

    def _head(self, text: str) -> None:
        self._console.print()
        self._console.print(Rule(f"[bold]{text}[/]", align="left"))


def _forgotten(decision: dict[str, Any]) -> dict[str, str]:
    """Older eval sets on which the gate found the candidate worse than it tolerates."""
    verdict = decision["verdict"] or {"details": {"sets": []}}
    return {
        one["name"]: one["reason"]
        for one in verdict["details"]["sets"]
        if one["role"] == "old" and one["outcome"] == "fail"
    }


def _close(shell: Shell, *, keep: bool, took_s: float) -> None:
    """Say where everything lies, and stop the daemon unless it is to be kept."""
    console, home = shell.console, shell.home
    console.print(Rule(f"[bold]Done in {took_s:.0f} s. Where everything lies[/]", align="left"))
    places = {
        "live model": home / "published" / STREAM / "live",
        "lineage": home / "rekindle.db",
        "weights": home / "artifacts",
        "job logs": home / "jobs",
        "settings": home / f"{STREAM}.yaml",
    }
    for name, path in places.items():
        console.print(f"  {name:<11} {path}", highlight=False, soft_wrap=True)
    if keep:
        console.print(f"\nThe daemon goes on (process {shell.daemon_pid}). Look around, for example:", highlight=False)
    else:
        shell.stop_daemon()
        console.print("\nThe daemon has ended. To look around, serve the folder again:", highlight=False)
        console.print(f"  rekindle serve --home {home}", highlight=False, soft_wrap=True)
    for command in (f"version list {STREAM}", f"version compare {STREAM}/1 {STREAM}/3", f"stream show {STREAM}"):
        console.print(f"  rekindle --home {home} {command}", highlight=False, soft_wrap=True)
    console.print(f"  rm -r {home}   # removes it all", highlight=False, soft_wrap=True)
