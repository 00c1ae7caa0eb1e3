"""All routes in one list: method, path, handler, and the smallest role that may use it.

A reader looks; an operator drives streams that are there; an admin registers and changes them, since settings name
files and models on the daemon's machine, and handles tokens, exports and backups. Measuring on a file of the daemon's
machine needs an admin, too; the handler asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.rest import streams, system, uploads, versions, work


@dataclass(frozen=True, kw_only=True)
class Route:
    """One line of the list."""

    method: str
    path: str
    handler: Callable[..., Any]
    role: str
    status: int = 200


def _route(method: str, path: str, handler: Callable[..., Any], role: str, status: int = 200) -> Route:
    return Route(method=method, path=path, handler=handler, role=role, status=status)


OPEN = _route("GET", "/healthz", system.health, "nobody")
METRICS = _route("GET", "/metrics", system.scrape, "reader")
UPLOAD = _route("POST", "/streams/{name}/batches", uploads.push_batch, "operator")

ROUTES: tuple[Route, ...] = (
    _route("GET", "/daemon", system.show_daemon, "reader"),
    _route("GET", "/schemas/stream", streams.stream_schema, "reader"),
    _route("GET", "/strategies", system.list_strategies, "reader"),
    _route("GET", "/strategies/{name}", system.show_strategy, "reader"),
    _route("GET", "/streams", streams.list_streams, "reader"),
    _route("POST", "/streams", streams.add_stream, "admin", 202),
    _route("GET", "/streams/{name}", streams.show_stream, "reader"),
    _route("PATCH", "/streams/{name}", streams.set_stream, "admin"),
    _route("DELETE", "/streams/{name}", streams.remove_stream, "admin"),
    _route("POST", "/streams/{name}/pause", streams.pause_stream, "operator"),
    _route("POST", "/streams/{name}/resume", streams.resume_stream, "operator"),
    _route("POST", "/streams/{name}/rebase", streams.rebase_stream, "admin"),
    _route("POST", "/streams/{name}/release-batches", streams.release_batches, "operator"),
    _route("POST", "/streams/{name}/retrain", streams.retrain, "operator"),
    _route("POST", "/streams/{name}/backtest", streams.backtest, "admin"),
    _route("POST", "/streams/{name}/rollback", streams.roll_back, "operator"),
    _route("POST", "/streams/{name}/triggers/pause", work.pause_triggers, "operator"),
    _route("POST", "/streams/{name}/triggers/resume", work.resume_triggers, "operator"),
    _route("GET", "/streams/{name}/triggers/test", work.try_triggers, "reader"),
    _route("GET", "/streams/{name}/versions", versions.list_versions, "reader"),
    _route("GET", "/streams/{name}/versions/{version}", versions.show_version, "reader"),
    _route("GET", "/streams/{name}/versions/{version}/lineage", versions.version_lineage, "reader"),
    _route("GET", "/streams/{name}/versions/{version}/trajectory", versions.trajectory, "reader"),
    _route("GET", "/streams/{name}/lineage", versions.stream_lineage, "reader"),
    _route("GET", "/streams/{name}/matrix", versions.matrix, "reader"),
    _route("GET", "/streams/{name}/transfer", versions.transfer, "reader"),
    _route("GET", "/streams/{name}/compare/{a}/{b}", versions.compare, "reader"),
    _route("POST", "/streams/{name}/merge", versions.merge, "operator"),
    _route("POST", "/streams/{name}/versions/{number}/promote", versions.promote, "operator"),
    _route("POST", "/streams/{name}/versions/{version}/evaluate", versions.evaluate, "operator"),
    _route("POST", "/streams/{name}/versions/{version}/export", versions.export, "admin"),
    _route("GET", "/batches", work.list_batches, "reader"),
    _route("GET", "/batches/{batch}", work.show_batch, "reader"),
    _route("POST", "/batches/{batch}/hold", work.hold_batch, "operator"),
    _route("POST", "/batches/{batch}/release", work.release_batch, "operator"),
    _route("GET", "/triggers", work.list_triggers, "reader"),
    _route("GET", "/decisions", work.list_decisions, "reader"),
    _route("GET", "/decisions/{decision}", work.show_decision, "reader"),
    _route("GET", "/jobs", work.list_jobs, "reader"),
    _route("GET", "/jobs/{job}", work.show_job, "reader"),
    _route("GET", "/jobs/{job}/log", work.job_log, "reader"),
    _route("POST", "/jobs/{job}/cancel", work.cancel_job, "operator"),
    _route("POST", "/jobs/{job}/retry", work.retry_job, "operator"),
    _route("GET", "/tokens", system.list_tokens, "admin"),
    _route("POST", "/tokens", system.create_token, "admin"),
    _route("DELETE", "/tokens/{name}", system.revoke_token, "admin"),
    _route("POST", "/gc", system.collect, "admin"),
    _route("POST", "/backup", system.backup, "admin"),
)
