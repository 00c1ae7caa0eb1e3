"""A recorded stream once more under another policy: the same batches in the same order, on a scratch stream.

The scratch stream has its own lineage from the same base, never publishes and takes no data; its jobs are real and wait
for all others. Batches, eval sets and the base are rows that name the same bytes, so nothing is copied; of the recorded
stream nothing changes. What comes next follows from what is there, so an interrupted replay goes on where it was. What
is replayed stays what it was when the replay began, whatever the recorded stream goes through meanwhile; its eval sets
are pooled by the same lots.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, NotFound
from orchestrator.flow import decision, promotion, records, revisions
from orchestrator.settings import LAST, StreamSettings
from storage import chain
from storage.moves import move
from storage.tables import Batch, Decision, EvalSet, Stream, Version, VersionArtifact
from strategies.chooser import choice
from strategies.errors import BadPlan

POLICY = ("strategy", "training", "gate", "budget", "resources")
"""Settings that another policy may have; all others are the recorded stream's."""
LATER = 10
"""How much lower the priority of a scratch stream's jobs is."""
NAME_KEPT = 40
HELD_S = 5.0
"""A caller that has not asked for this long has left the replay to others."""
Row = TypeVar("Row", Batch, EvalSet)


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is replayed: batches in the groups that were decided on together, and the decisions that dealt with them."""

    groups: tuple[tuple[int, ...], ...]
    decisions: tuple[int, ...]


def past_of(session: Session, stream: Stream, *, until: int | None, before: datetime | None = None) -> Past:
    """What the recorded stream went through, as far as batch ``until``, or to its last retrain (``before`` an instant).

    Raises:
        NotFound: the stream has no such batch.
        Conflict: nothing was retrained yet.
    """
    arrived = [batch.id for batch in _data_batches(session, stream)]
    ended = Decision.closed_at.is_not(None) if before is None else Decision.closed_at <= before
    closed = session.scalars(select(Decision).where(Decision.stream_id == stream.id, ended).order_by(Decision.id)).all()
    decided = [one for one in closed if one.batches]
    if until is not None and until not in arrived:
        raise NotFound(f"stream {stream.name!r} has no data batch {until}; `rekindle batch list {stream.name}`")
    made = set(session.scalars(select(Version.decision_id).where(Version.stream_id == stream.id)))
    last = until if until is not None else max((one for row in decided for one in row.batches), default=0)
    wanted = [one for one in arrived if one <= last]
    if not wanted:
        raise Conflict(f"stream {stream.name!r} was never retrained; there is nothing to replay, or name --until BATCH")
    return Past(
        groups=_groups(wanted, sorted(decided, key=lambda row: row.id not in made)),
        decisions=tuple(row.id for row in decided if max(row.batches) <= last),
    )


def begun(session: Session, stream: Stream, name: str) -> Stream:
    """The scratch stream of a replay that goes on.

    Raises:
        NotFound: the stream has no such replay.
    """
    found = session.scalar(select(Stream).where(Stream.name == name, Stream.archived_at.is_(None)))
    if found is None or not name.startswith(_prefix(stream)):
        raise NotFound(f"stream {stream.name!r} has no replay {name}; ask for one with `rekindle stream backtest`")
    return found


def begin(app: App, session: Session, stream: Stream, settings: StreamSettings, *, key: str, actor: str) -> Stream:
    """The scratch stream of this replay, made where none was begun: version 1 is the recorded base, live at once."""
    name = f"{_prefix(stream)}{key}"
    found = session.scalar(select(Stream).where(Stream.name == name, Stream.archived_at.is_(None)))
    if found is not None:
        return found
    scratch = Stream(
        id=uuid.uuid4().hex,
        name=name,
        task=stream.task,
        state="registering",
        split_key=stream.split_key,
        created_at=app.clock.now(),
    )
    session.add(scratch)
    session.flush()
    settings = settings.model_copy(update={"name": name})
    revisions.add(app, session, scratch, settings, origins={"name": f"backtest of {stream.name}"}, actor=actor)
    for batch in session.scalars(select(Batch).where(Batch.stream_id == stream.id, Batch.kind != "data")):
        _copy_batch(app, session, scratch, batch, state=batch.state)
    _copy_base(app, session, stream, scratch, actor=actor)
    return scratch


def scratch_settings(recorded: StreamSettings, changed: StreamSettings) -> StreamSettings:
    """The recorded settings under another policy, with neither source nor triggers nor a published folder.

    Raises:
        BadInput: something else would change, scores would not compare, or the screws contradict each other.
    """
    for key in StreamSettings.model_fields:
        if key not in POLICY and getattr(recorded, key) != getattr(changed, key):
            raise BadInput(f"{key} cannot differ in a backtest, which replays the same data; set {', '.join(POLICY)}")
    if recorded.training.max_length != changed.training.max_length:
        raise BadInput("training.max_length cannot differ in a backtest: scores would not compare")
    try:
        choice.check(changed.strategy, changed.training, changed.task)
    except BadPlan as error:
        raise BadInput(f"strategy: {error}") from error
    priority = max(LAST, changed.resources.priority - LATER)
    return changed.model_copy(
        update={
            "source": type(changed.source)(),
            "triggers": (),
            "publish": type(changed.publish)(enabled=False),
            "resources": changed.resources.model_copy(update={"priority": priority}),
        }
    )


def hold(app: App, scratch: Stream, caller: str) -> None:
    """Keep the replay for ``caller`` until it stops asking: one that ends removes what another would still wait for.

    Raises:
        Conflict: somebody else is at it.
    """
    at = app.clock.monotonic()
    for left in [one for one, (_, asked) in app.replaying.items() if at - asked >= HELD_S]:
        del app.replaying[left]
    holder, _ = app.replaying.get(scratch.id, (caller, at))
    if holder != caller:
        raise Conflict(
            f"another `rekindle stream backtest` is at {scratch.name}; wait for its end, or stop it and ask again "
            f"in {HELD_S:.0f} s to go on from there"
        )
    app.replaying[scratch.id] = (caller, at)


def feed(app: App, session: Session, scratch: Stream, past: Past, *, actor: str) -> Decision | None:
    """The open decision of the replay, or the one on the next group of batches; None once all were fed."""
    if found := records.open_decision(session, scratch.id):
        return found
    for group in past.groups[fed(session, scratch, past) :]:
        for _, batch in sorted(records.batches_by_id(session, group).items()):
            _copy_batch(app, session, scratch, batch, state="pending")
        session.flush()
        if records.pending_batches(session, scratch.id):
            return decision.open_or_new(app, session, scratch, strategy=None, actor=actor, reason="backtest")
    return None


def fed(session: Session, scratch: Stream, past: Past) -> int:
    """How many groups the scratch stream has had."""
    there = {batch.arrival_hash for batch in _data_batches(session, scratch)}
    hashes = {one: batch.arrival_hash for one, batch in _named(session, past).items()}
    return sum(1 for group in past.groups if all(hashes[one] in there for one in group))


def policy_key(revision: int, changes: Mapping[str, Any], groups: Sequence[Sequence[int]]) -> str:
    """Equal for the same question, so that an interrupted replay is found again."""
    return records.fingerprint([revision, dict(changes), groups])[:8]


def _prefix(stream: Stream) -> str:
    return f"{stream.name[:NAME_KEPT]}.backtest-"


def _named(session: Session, past: Past) -> dict[int, Batch]:
    return records.batches_by_id(session, [one for group in past.groups for one in group])


def _data_batches(session: Session, stream: Stream) -> Sequence[Batch]:
    query = select(Batch).where(Batch.stream_id == stream.id, Batch.kind == "data", Batch.state != "erased")
    return session.scalars(query.order_by(Batch.id)).all()


def _groups(wanted: Sequence[int], decided: Sequence[Decision]) -> tuple[tuple[int, ...], ...]:
    """Each batch once, with those of the first of the decisions; one that none dealt with stands alone."""
    left = set(wanted)
    groups = []
    for row in decided:
        group = tuple(sorted(left.intersection(row.batches)))
        left.difference_update(group)
        groups += [group] if group else []
    return tuple(sorted([*groups, *((one,) for one in left)]))


def _copy_batch(app: App, session: Session, scratch: Stream, batch: Batch, *, state: str) -> None:
    """The batch and its eval sets as rows of the scratch stream; the bytes are the same."""
    changed = {"stream_id": scratch.id, "state": state, "state_reason": None, "refusals": 0}
    copied = _copied(batch, **changed, drawn_as=records.source_name(batch), created_at=app.clock.now())
    session.add(copied)
    session.flush()
    for one in session.scalars(select(EvalSet).where(EvalSet.batch_id == batch.id).order_by(EvalSet.id)):
        if one.members == [batch.id] if batch.kind == "data" else one.active:
            own = {"stream_id": scratch.id, "batch_id": copied.id, "members": [copied.id], "active": True}
            session.add(_copied(one, **own, created_at=app.clock.now()))


def _copy_base(app: App, session: Session, stream: Stream, scratch: Stream, *, actor: str) -> None:
    base = records.base_of(session, stream.id)
    version = chain.append(
        session,
        Version(
            stream_id=scratch.id,
            number=1,
            state="candidate",
            strategy="base",
            model_hash=base.model_hash,
            facts=base.facts,
            pinned=False,
            created_at=app.clock.now(),
        ),
    )
    for role, manifest in records.artifacts_of(session, base.id).items():
        session.add(VersionArtifact(version_id=version.id, role=role, manifest_hash=manifest))
    session.flush()
    reason = f"the base of {stream.name}"
    move(session, version, "evaluated", actor=actor, reason=reason, epoch=app.epoch)
    promotion.make_live(app, session, stream=scratch, version=version, kind="initial", reason=reason, actor=actor)
    move(session, scratch, "active", actor=actor, reason=reason, epoch=app.epoch)


def _copied(row: Row, **changes: Any) -> Row:
    columns = [column.key for column in row.__table__.columns if column.key != "id"]
    return type(row)(**{key: getattr(row, key) for key in columns} | changes)
