"""Routes of streams: registered, looked at, changed, retrained, rolled back."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from orchestrator.rest import bodies
from orchestrator.rest.depends import Actor, Limit, Rekindle
from orchestrator.service.backtest_records import BacktestRecord
from orchestrator.service.commands import backtests, batches, decisions, streams, versions
from orchestrator.service.records import (
    BatchRecord,
    LiveRecord,
    RetrainRecord,
    SettingsPreview,
    StreamDetail,
    StreamRecord,
    VersionRecord,
)
from orchestrator.service.views import streams as views
from orchestrator.settings import StreamSettings


def list_streams(rekindle: Rekindle, archived: bool = False, limit: Limit = 1000) -> list[StreamRecord]:
    """All streams by name."""
    return views.list_streams(rekindle, archived=archived, limit=limit)


def add_stream(
    rekindle: Rekindle, actor: Actor, body: bodies.NewStream, response: Response, dry_run: bool = False
) -> StreamDetail | SettingsPreview:
    """Register a stream; the base model is stored in the background until ``state`` leaves registering."""
    if dry_run:
        response.status_code = 200
        return streams.preview_stream(body.settings, body.origins)
    return streams.add_stream(rekindle, body.settings, body.origins, actor=actor)


def show_stream(rekindle: Rekindle, name: str) -> StreamDetail:
    """One stream with each setting's origin."""
    return views.show_stream(rekindle, name)


def set_stream(
    rekindle: Rekindle, actor: Actor, name: str, body: bodies.Changes, dry_run: bool = False
) -> StreamDetail | SettingsPreview:
    """A new revision of the settings."""
    return streams.set_stream(rekindle, name, body.changes, body.origins, actor=actor, dry_run=dry_run)


def remove_stream(rekindle: Rekindle, actor: Actor, name: str, purge: bool = False) -> StreamRecord:
    """Archive a stream; with ``purge`` its bytes go too. Lineage stays."""
    return streams.remove(rekindle, name, purge=purge, actor=actor)


def pause_stream(rekindle: Rekindle, actor: Actor, name: str) -> StreamRecord:
    """No trigger fires until it is resumed."""
    return streams.pause(rekindle, name, actor=actor)


def resume_stream(rekindle: Rekindle, actor: Actor, name: str) -> StreamRecord:
    """Let a paused stream go on."""
    return streams.resume(rekindle, name, actor=actor)


def rebase_stream(rekindle: Rekindle, actor: Actor, name: str, body: bodies.Rebase) -> VersionRecord:
    """A new root version on another base model, measured and gated like a candidate."""
    return streams.rebase(rekindle, name, model=body.model, revision=body.revision, actor=actor)


def release_batches(rekindle: Rekindle, actor: Actor, name: str, body: bodies.Batches) -> list[BatchRecord]:
    """Let held batches feed training again."""
    return batches.release_all(rekindle, name, batches=body.batches, actor=actor)


def retrain(rekindle: Rekindle, actor: Actor, name: str, body: bodies.Retrain) -> RetrainRecord:
    """The stream's open decision, or a new one."""
    return decisions.retrain(rekindle, name, strategy=body.strategy, dry_run=body.dry_run, actor=actor)


def backtest(rekindle: Rekindle, actor: Actor, name: str, body: bodies.Backtest) -> BacktestRecord:
    """Begin a replay under another policy, or take the same one further; ask until its state is done."""
    return backtests.backtest(
        rekindle, name, body.changes, until=body.until, actor=actor, caller=body.caller, scratch=body.scratch
    )


def roll_back(rekindle: Rekindle, actor: Actor, name: str, body: bodies.Rollback) -> LiveRecord:
    """Return to a version that was live before."""
    return versions.roll_back(rekindle, name, to=body.to, reason=body.reason, actor=actor)


def stream_schema() -> dict[str, Any]:
    """The settings of a stream as JSON Schema."""
    return StreamSettings.model_json_schema()
