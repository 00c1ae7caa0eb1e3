"""Routes of the daemon itself: health, metrics, strategies, tokens, gc, backup."""

from __future__ import annotations

from pathlib import Path

from fastapi import Response
from fastapi.responses import PlainTextResponse

from orchestrator.rest import bodies, metrics
from orchestrator.rest.depends import Actor, Rekindle
from orchestrator.service.commands import maintenance, tokens
from orchestrator.service.records import (
    BackupRecord,
    CollectRecord,
    DaemonRecord,
    NewToken,
    StrategyRecord,
    TokenRecord,
)
from orchestrator.service.views import daemon, strategies


def health() -> PlainTextResponse:
    """Open to all, and says only ok."""
    return PlainTextResponse("ok")


def scrape(rekindle: Rekindle) -> Response:
    """Figures for Prometheus."""
    text, content_type = metrics.render(rekindle)
    return Response(text, media_type=content_type)


def show_daemon(rekindle: Rekindle) -> DaemonRecord:
    """Who serves, from where, under which epoch."""
    return daemon.show_daemon(rekindle)


def list_strategies(rekindle: Rekindle) -> list[StrategyRecord]:
    """All strategies that a stream can name."""
    return strategies.list_strategies()


def show_strategy(rekindle: Rekindle, name: str) -> StrategyRecord:
    """One strategy, screw by screw."""
    return strategies.show_strategy(name)


def list_tokens(rekindle: Rekindle) -> list[TokenRecord]:
    """All keys without their secrets."""
    return tokens.list_tokens(rekindle)


def create_token(rekindle: Rekindle, actor: Actor, body: bodies.TokenWanted) -> NewToken:
    """Make a key; the secret is shown this once."""
    return tokens.create(rekindle, body.name, role=body.role, expires_in_s=body.expires_in_s, actor=actor)


def revoke_token(rekindle: Rekindle, actor: Actor, name: str) -> TokenRecord:
    """End a key at once and for good."""
    return tokens.revoke(rekindle, name, actor=actor)


def collect(rekindle: Rekindle, actor: Actor, body: bodies.DryRun) -> CollectRecord:
    """Remove bytes that nothing needs any more."""
    return maintenance.collect(rekindle, dry_run=body.dry_run, actor=actor)


def backup(rekindle: Rekindle, actor: Actor, body: bodies.Directory) -> BackupRecord:
    """Copy database and artifacts to a folder on the daemon's machine."""
    return maintenance.backup(rekindle, Path(body.directory), actor=actor)
