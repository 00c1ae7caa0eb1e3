"""Routes of versions: lists, lineage, matrix, comparison, promotion, export."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from orchestrator.rest import bodies
from orchestrator.rest.depends import Actor, Before, Limit, Named, Rekindle, RowId, check_role
from orchestrator.service.commands import exports, merging, versions
from orchestrator.service.names import VersionName
from orchestrator.service.records import (
    Comparison,
    EvaluateRecord,
    EvaluationRecord,
    ExportRecord,
    LineageRecord,
    LiveRecord,
    MergeRecord,
    TransferRecord,
    VersionDetail,
    VersionRecord,
)
from orchestrator.service.views import comparison
from orchestrator.service.views import versions as views
from orchestrator.service.views.trajectory import show_trajectory
from orchestrator.service.views.transfer import show_transfer
from strategies.agent.trajectories import Trajectory


def list_versions(rekindle: Rekindle, name: str, limit: Limit = 100, before: Before = None) -> list[VersionRecord]:
    """The newest versions, in order of their numbers."""
    return views.list_versions(rekindle, name, limit=limit, before=before)


def show_version(rekindle: Rekindle, named: Named) -> VersionDetail:
    """One version with all that is known of it."""
    return views.show_version(rekindle, named)


def matrix(rekindle: Rekindle, name: str, limit: Limit = 100, before: Before = None) -> list[EvaluationRecord]:
    """Evaluations of the newest versions on all their eval sets."""
    return views.matrix(rekindle, name, limit=limit, before=before)


def transfer(rekindle: Rekindle, name: str) -> TransferRecord:
    """Average, backward and forward transfer, forgetting and plasticity over the live line."""
    return show_transfer(rekindle, name)


def stream_lineage(rekindle: Rekindle, name: str) -> list[LineageRecord]:
    """All versions of a stream with their parents."""
    return views.show_lineage(rekindle, VersionName(stream=name), whole=True)


def version_lineage(rekindle: Rekindle, named: Named) -> list[LineageRecord]:
    """A version with its ancestors and descendants."""
    return views.show_lineage(rekindle, named, whole=False)


def trajectory(rekindle: Rekindle, named: Named) -> Trajectory:
    """What the version's mixture did to its losses, as `rekindle mixing train` takes it."""
    return show_trajectory(rekindle, named)


def compare(rekindle: Rekindle, name: str, a: RowId, b: RowId) -> Comparison:
    """Two versions side by side: data, settings, scores, flips."""
    return comparison.compare(rekindle, name, a, b)


def promote(rekindle: Rekindle, actor: Actor, name: str, number: RowId, body: bodies.Promote) -> LiveRecord:
    """Make a version live at a user's word."""
    return versions.promote(rekindle, name, number, force=body.force, reason=body.reason, actor=actor)


def merge(rekindle: Rekindle, name: str, body: bodies.Merge) -> MergeRecord:
    """Merge versions into a candidate, which is measured and gated like any other."""
    return merging.merge(rekindle, name, **dict(body))


def evaluate(rekindle: Rekindle, actor: Actor, request: Request, named: Named, body: bodies.Evaluate) -> EvaluateRecord:
    """Have a version measured; naming a file on the daemon's machine needs an admin."""
    if body.data is not None:
        check_role(request, "admin")
    data = None if body.data is None else Path(body.data)
    return versions.evaluate(rekindle, named, data=data, actor=actor)


def export(rekindle: Rekindle, actor: Actor, named: Named, body: bodies.Export) -> ExportRecord:
    """Write a version as a plain Hugging Face folder on the daemon's machine."""
    return exports.export(rekindle, named, Path(body.directory), as_adapter=body.as_adapter, actor=actor)
