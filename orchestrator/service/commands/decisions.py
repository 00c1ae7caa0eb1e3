"""Asking for a retrain."""

from __future__ import annotations

from typing import Any

from orchestrator.app import App
from orchestrator.flow import decision as flow
from orchestrator.flow import records
from orchestrator.service.records import RetrainRecord
from orchestrator.service.views import common
from orchestrator.service.views.decisions import decision_records
from orchestrator.service.views.streams import explained


def retrain(app: App, stream: str, *, strategy: str | None, dry_run: bool, actor: str) -> RetrainRecord:
    """The stream's open decision, or a new one; with ``dry_run`` only what it would be.

    Raises:
        NotFound: no such stream, or nothing live yet.
        BadInput: the strategy is unknown or does not fit.
        Conflict: nothing is pending, or the stream is paused.
    """
    if dry_run:
        preview = flow.dry_run(app, stream, strategy=strategy)
        shown = preview.model_copy(update={"values": _with_origins(app, stream, preview.values)})
        return RetrainRecord(dry_run=True, decision=None, preview=shown.model_dump(mode="json"))
    made = flow.request(app, stream, strategy=strategy, actor=actor)
    with app.database.read() as session:
        return RetrainRecord(dry_run=False, decision=decision_records(session, [made])[0], preview=None)


def _with_origins(app: App, stream: str, values: dict[str, Any]) -> dict[str, Any]:
    """A value that is a setting's own has the origin that the stream shows of the setting."""
    with app.database.read() as session:
        revision = records.revision_of(session, common.find_stream(session, stream).id)
    known = {one.key: one.origin for one in explained(revision.settings, revision.origins)}
    return {name: {**one, "origin": known.get(one["origin"], one["origin"])} for name, one in values.items()}
