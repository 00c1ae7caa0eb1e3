"""Asking for a retrain."""

from __future__ import annotations

from orchestrator.app import App
from orchestrator.flow import decision as flow
from orchestrator.service.records import RetrainRecord
from orchestrator.service.views.decisions import decision_records


def retrain(app: App, stream: str, *, strategy: str | None, dry_run: bool, actor: str) -> RetrainRecord:
    """The stream's open decision, or a new one; with ``dry_run`` only what it would be.

    Raises:
        NotFound: no such stream, or nothing live yet.
        BadInput: the strategy is unknown or does not fit.
        Conflict: nothing is pending, or the stream is paused.
    """
    if dry_run:
        preview = flow.dry_run(app, stream, strategy=strategy)
        return RetrainRecord(dry_run=True, decision=None, preview=preview.model_dump(mode="json"))
    made = flow.request(app, stream, strategy=strategy, actor=actor)
    with app.database.read() as session:
        return RetrainRecord(dry_run=False, decision=decision_records(session, [made])[0], preview=None)
