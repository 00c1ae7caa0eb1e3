"""Pausing and resuming triggers."""

from __future__ import annotations

from orchestrator.app import App
from orchestrator.errors import Conflict
from orchestrator.service.records import TriggerRecord
from orchestrator.service.views import common
from orchestrator.service.views.triggers import find_triggers, trigger_records
from storage.moves import move


def pause(app: App, stream: str, name: str | None, *, actor: str) -> list[TriggerRecord]:
    """Stop the named trigger, or all of the stream's, from firing.

    Raises:
        NotFound: no such stream or trigger.
        Conflict: nothing there is active.
    """
    return _move_all(app, stream, name, start="active", to="paused", actor=actor)


def resume(app: App, stream: str, name: str | None, *, actor: str) -> list[TriggerRecord]:
    """Let the named trigger, or all of the stream's, fire again; firings during the pause are not made up for.

    Raises:
        NotFound: no such stream or trigger.
        Conflict: nothing there is paused.
    """
    return _move_all(app, stream, name, start="paused", to="active", actor=actor)


def _move_all(app: App, stream: str, name: str | None, *, start: str, to: str, actor: str) -> list[TriggerRecord]:
    with app.database.write() as session:
        owner = common.find_stream(session, stream)
        found = find_triggers(session, owner, name)
        chosen = [trigger for trigger in found if trigger.state == start]
        if not chosen:
            raise Conflict(
                f"stream {stream!r} has no {start} trigger of that name; `rekindle trigger list {stream}` shows states"
            )
        for trigger in chosen:
            move(session, trigger, to, actor=actor, reason="asked for", next_at=None)
        names = {trigger.name for trigger in found}
        moved = [one for one in trigger_records(session, [owner]) if one.name in names]
    app.wake.set()
    return moved
