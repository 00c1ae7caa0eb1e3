"""Replaying a recorded stream under another policy, one call at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import backtest as flow
from orchestrator.flow import records
from orchestrator.service import settings as reading
from orchestrator.service.backtest_records import BacktestRecord
from orchestrator.service.views import backtest as view
from storage.tables import Stream


def backtest(
    app: App,
    name: str,
    changes: Mapping[str, Any],
    *,
    until: int | None,
    actor: str,
    caller: str = "",
    scratch: str | None = None,
) -> BacktestRecord:
    """Begin the replay or take it one step further: feed the next batches, or measure both sides on the same sets.

    ``caller`` tells those apart who ask for the same replay: one of them is let in at a time. ``scratch`` names the
    replay that goes on, which is then of the past as it was when that began.

    Raises:
        NotFound: no such stream or batch.
        Conflict: nothing was retrained yet, or another caller is at this replay.
        BadInput: a key is wrong, or more than the policy would differ.
    """
    with app.database.write() as session:
        stream = records.stream_by_name(session, name)
        records.live_of(session, stream)
        known = None if scratch is None else flow.begun(session, stream, scratch)
        past = flow.past_of(session, stream, until=until, before=None if known is None else known.created_at)
        replay = known or _scratch(app, session, stream, changes, past, actor=actor)
        flow.hold(app, replay, caller)
        open_decision = flow.feed(app, session, replay, past, actor=actor)
        complete = open_decision is None and view.ensure_measured(session, stream, replay, past)
        record = view.progress(session, stream, replay, past, changes=dict(changes), decision=open_decision)
        if complete:
            record = view.finished(session, stream, replay, past, record)
    app.wake.set()
    return record


def _scratch(
    app: App, session: Session, stream: Stream, changes: Mapping[str, Any], past: flow.Past, *, actor: str
) -> Stream:
    revision = records.revision_of(session, stream.id)
    recorded = records.settings_of(session, stream.id)
    changed = reading.parse(reading.with_changes(revision.settings, changes))
    settings = flow.scratch_settings(recorded, changed)
    key = flow.policy_key(revision.id, changes, past.groups)
    return flow.begin(app, session, stream, settings, key=key, actor=actor)
