"""Before the first step: a stream is registered, its base becomes version 1, its anchor and fixed sets are read."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator import base_model, triggers
from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, RekindleError
from orchestrator.flow import evaluation, promotion, publication, records, revisions
from orchestrator.flow.alerts import alert
from orchestrator.flow.each import each
from orchestrator.flow.job import directory_of, next_number
from orchestrator.ingest import run as ingest
from orchestrator.ingest.records import Kind
from orchestrator.jobs import queue
from orchestrator.settings import StreamSettings
from storage import chain, lineage, manifests
from storage.errors import StorageError
from storage.moves import move
from storage.tables import EvalSet, Job, Stream, Version, VersionArtifact
from strategies.agent.folder import fingerprint
from strategies.chooser import choice
from strategies.contract import MeasureWork, SampleWork
from strategies.errors import BadPlan, BadState
from strategies.settings.mixing import AgentMixSettings, WeightedSettings

OWN_NAMES = re.compile(r"anchor|batch-\d+|pool-\d+")
"""Eval sets that Rekindle makes of what arrives."""


def step(app: App) -> bool:
    """Go on with streams whose registration was begun, and sample a stand-in where an anchor is missing."""
    with app.database.read() as session:
        unfinished = session.scalars(select(Stream).where(Stream.state == "registering")).all()
        working = records.working_streams(session)
    started = [app.background.start(f"register:{one.id}", partial(_register, app, one.id)) for one in unfinished]
    return each(partial(_stand_in, app), [one.id for one in working if one.task == "causal-lm"]) or any(started)


def add_stream(app: App, settings: StreamSettings, *, origins: dict[str, str], actor: str) -> Stream:
    """Write the stream down; the base, the anchor and the fixed sets are read in the background.

    Raises:
        BadInput: the model, a trigger, the zone or a file is wrong.
        Conflict: the name is taken, or another stream publishes to the same directory.
    """
    check(settings)
    base_model.check(settings)
    with app.database.write() as session:
        _make_room(session, settings.name, actor, app)
        stream = Stream(
            id=uuid.uuid4().hex,
            name=settings.name,
            task=settings.task,
            state="registering",
            split_key=secrets.token_hex(32),
            created_at=app.clock.now(),
        )
        session.add(stream)
        session.flush()
        revisions.add(app, session, stream, settings, origins=origins, actor=actor)
        publication.check_directory(app, session, stream)
    app.wake.set()
    return stream


def change_stream(
    app: App, stream_name: str, settings: StreamSettings, *, since: int, origins: dict[str, str], actor: str
) -> Stream:
    """A new revision of the settings, made of the one with id ``since``; decisions that are under way keep theirs.

    Raises:
        NotFound: no such stream.
        BadInput: a value is wrong, or one that is fixed for the life of the stream would change.
        Conflict: another stream publishes to the same directory, or the settings are no longer those of ``since``.
    """
    stream, before = check_change(app, stream_name, settings)
    added = settings.evaluations.keys() - before.evaluations.keys()
    read = {
        name: _ingested(app, stream, settings.evaluations[name], name=name, kind="fixed", actor=actor)
        for name in sorted(added)
    }
    with app.database.write() as session:
        stream = session.get_one(Stream, stream.id)
        if records.revision_of(session, stream.id).id != since:
            raise Conflict(f"the settings of {stream_name!r} were changed meanwhile; set yours again")
        revisions.add(app, session, stream, settings, origins=origins, actor=actor)
        publication.check_directory(app, session, stream)
        for one in session.scalars(select(EvalSet).where(EvalSet.stream_id == stream.id, EvalSet.kind == "fixed")):
            # One that comes back may have been another file in between.
            one.active = read[one.name] in one.members if one.name in read else _is_kept(one, settings)
    if settings.publish != before.publish:
        publication.withdraw_former(app, stream.id, before)
        publication.follow(app, stream.id)
    app.wake.set()
    return stream


def check_change(app: App, stream_name: str, settings: StreamSettings) -> tuple[Stream, StreamSettings]:
    """The stream and its present settings, where the new ones could take their place.

    Raises:
        NotFound: no such stream.
        BadInput: a value is wrong, or one that is fixed for the life of the stream would change.
    """
    check(settings)
    with app.database.read() as session:
        stream = records.stream_by_name(session, stream_name)
        before = records.settings_of(session, stream.id)
    _refuse_fixed(before, settings)
    return stream, before


def rebase(app: App, stream_name: str, *, model: str, revision: str | None, actor: str) -> Version:
    """A new root version from another base model: a candidate, measured on all eval sets and gated like any other.

    Raises:
        NotFound: no such stream.
        BadInput: the model cannot be had or cannot do the task.
        Conflict: the stream has nothing live yet.
    """
    with app.database.read() as session:
        stream = records.stream_by_name(session, stream_name)
        records.live_of(session, stream)
        settings = records.settings_of(session, stream.id).model_copy(update={"model": model, "revision": revision})
    base_model.check(settings)
    manifest, facts = base_model.bring(settings, store=app.home.artifacts, cache=app.home.cache / "hub")
    with app.database.write() as session:
        stream = session.get_one(Stream, stream.id)
        version = _add_root(app, session, stream, manifest=manifest, facts=facts, strategy="rebase")
    app.wake.set()
    return version


def check(settings: StreamSettings) -> None:
    """What the closed tree cannot check by itself: screws that fit each other, zone, cron expressions, files.

    Raises:
        BadInput: one of them is wrong.
    """
    try:
        choice.check(settings.strategy, settings.training, settings.task)
    except BadPlan as error:
        raise BadInput(f"strategy: {error}") from error
    triggers.check_timezone(settings.timezone)
    for trigger in settings.triggers:
        triggers.build(trigger, settings.timezone)
    for name in settings.evaluations:
        if not name or "/" in name or OWN_NAMES.fullmatch(name):
            raise BadInput(
                f"evaluations.{name}: a set's name is not empty, has no / and is not one of Rekindle's own"
                " (anchor, batch-N, pool-N); choose another"
            )
    wanted = {"anchor": settings.anchor} if settings.anchor else {}
    for key, pattern in {
        **wanted,
        **{f"evaluations.{name}": one for name, one in settings.evaluations.items()},
    }.items():
        if not _files(pattern):
            raise BadInput(f"{key}: there is no file at {pattern}")
    mixing = choice.mixing_of(settings.strategy)
    if isinstance(mixing, WeightedSettings):
        _check_mixing(mixing, domain_field=settings.source.domain_field)


def _check_mixing(mixing: WeightedSettings, *, domain_field: str | None) -> None:
    if mixing.domains.by == "column" and not domain_field:
        raise BadInput("strategy.mixing.domains: column needs source.domain_field, the column that names the domains")
    reweight = mixing.reweight
    if not isinstance(reweight, AgentMixSettings) or reweight.folder is None:
        return
    try:
        fingerprint(Path(reweight.folder))
    except BadState as error:
        raise BadInput(f"strategy.mixing.reweight.folder: {error}") from error


def _files(pattern: str) -> Sequence[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    return sorted(one for one in path.parent.glob(path.name) if one.is_file()) if path.parent.is_dir() else []


def _make_room(session: Session, name: str, actor: str, app: App) -> None:
    """A name is free if no stream has it, or only one whose registration failed."""
    taken = session.scalar(select(Stream).where(Stream.name == name, Stream.archived_at.is_(None)))
    if taken is None:
        return
    if taken.state != "failed":
        raise Conflict(f"the name {name!r} is taken; choose another, or `rekindle stream remove {name}` first")
    at = app.clock.now()
    move(
        session,
        taken,
        "archived",
        actor=actor,
        reason="its registration failed; tried again",
        epoch=app.epoch,
        archived_at=at,
    )


def _refuse_fixed(before: StreamSettings, after: StreamSettings) -> None:
    hints = {
        "name": "the name is fixed; register another stream",
        "task": "the task is fixed for the life of a stream; register another stream",
        "model": "`rekindle stream rebase` brings another base model",
        "revision": "`rekindle stream rebase` brings another base model",
        "anchor": "the anchor is what older versions were measured on; register another stream",
    }
    for key, hint in hints.items():
        if getattr(before, key) != getattr(after, key):
            raise BadInput(f"{key} cannot be changed: {hint}")
    for name in before.evaluations.keys() & after.evaluations.keys():
        if after.evaluations[name] != before.evaluations[name]:
            raise BadInput(f"evaluations.{name} cannot be changed: its scores would not compare; add another")


def _register(app: App, stream_id: str) -> None:
    """Each part can be done again without harm, so a daemon that died in the middle simply goes on."""
    with app.database.read() as session:
        stream = session.get_one(Stream, stream_id)
        settings = records.settings_of(session, stream_id)
    try:
        manifest, facts = base_model.bring(settings, store=app.home.artifacts, cache=app.home.cache / "hub")
        if settings.anchor:
            _read(app, stream, settings.anchor, name="anchor", kind="anchor", actor="daemon")
        for name, path in settings.evaluations.items():
            _read(app, stream, path, name=name, kind="fixed", actor="daemon")
        _go_live(app, stream_id, manifest, facts)
    except (RekindleError, StorageError, OSError) as error:
        _fail(app, stream_id, str(error))


def _go_live(app: App, stream_id: str, manifest: str, facts: dict[str, Any]) -> None:
    """Version 1 is live from the start; its scores come before any decision about training."""
    with app.database.write() as session:
        stream = session.get_one(Stream, stream_id)
        if stream.state != "registering":
            return
        version = _add_root(app, session, stream, manifest=manifest, facts=facts, strategy="base")
        reason = "the base model as registered"
        move(session, version, "evaluated", actor="daemon", reason=reason, epoch=app.epoch)
        promotion.make_live(app, session, stream=stream, version=version, kind="initial", reason=reason, actor="daemon")
        move(session, stream, "active", actor="daemon", reason="registered", epoch=app.epoch)
    publication.follow(app, stream_id)
    app.wake.set()


def _fail(app: App, stream_id: str, error: str) -> None:
    with app.database.write() as session:
        stream = session.get_one(Stream, stream_id)
        if stream.state == "registering":
            move(session, stream, "failed", actor="daemon", reason=error, epoch=app.epoch, error=error)


def _add_root(
    app: App, session: Session, stream: Stream, *, manifest: str, facts: dict[str, Any], strategy: str
) -> Version:
    manifests.register(session, app.store.read_manifest(manifest))
    version = chain.append(
        session,
        Version(
            stream_id=stream.id,
            number=next_number(session, stream.id),
            state="candidate",
            strategy=strategy,
            model_hash=records.fingerprint({"answer/model": manifest}),
            facts=facts,
            pinned=False,
            created_at=app.clock.now(),
        ),
    )
    session.add(VersionArtifact(version_id=version.id, role="answer/model", manifest_hash=manifest))
    session.flush()
    return version


def _read(app: App, stream: Stream, pattern: str, *, name: str, kind: Kind, actor: str) -> None:
    """Ingest an anchor or a fixed set; one that is there already is left alone."""
    with app.database.read() as session:
        found = session.scalar(select(EvalSet.id).where(EvalSet.stream_id == stream.id, EvalSet.name == name))
    if found is None:
        _ingested(app, stream, pattern, name=name, kind=kind, actor=actor)


def _ingested(app: App, stream: Stream, pattern: str, *, name: str, kind: Kind, actor: str) -> int:
    """The batch that the files became, now or before."""
    report = ingest.spawn(app, stream.id, path=pattern, name=name, kind=kind, actor=actor)
    if report.batch_id is None:
        raise BadInput(f"{kind} {name} was refused: {report.reason}")
    return report.batch_id


def _is_kept(one: EvalSet, settings: StreamSettings) -> bool:
    return one.active and one.name in settings.evaluations


def _stand_in(app: App, stream_id: str) -> bool:
    """Have a base without an anchor write a synthetic one, so that forgetting can at least be guessed at."""
    with app.database.read() as session:
        if not records.lacks_anchor(session, session.get_one(Stream, stream_id)):
            return False
        if records.anchor_batches(session, stream_id) or records.refusal_of_samples(session, stream_id):
            return False
    with app.database.write() as session:
        stream = session.get_one(Stream, stream_id)
        settings = records.settings_of(session, stream_id)
        live = lineage.live_version(session, stream_id)
        if live is None:
            return False
        job = _queue_samples(session, stream, live, settings)
        left = records.result_of(job).samples if job.state == "succeeded" else None
        if left is None:
            return False
        samples = directory_of(session, job) / left
        name = records.samples_name(job)
    return app.background.start(f"stand-in:{stream_id}", lambda: _read_samples(app, stream, samples, name=name))


def _read_samples(app: App, stream: Stream, samples: Path, *, name: str) -> None:
    report = ingest.spawn(app, stream.id, path=samples, name=name, kind="anchor", actor="daemon", synthetic=True)
    if report.batch_id is None:
        alert(app, f"{name} cannot stand in for an anchor: {report.reason}", stream_id=stream.id)
    app.wake.set()


def _queue_samples(session: Session, stream: Stream, live: Version, settings: StreamSettings) -> Job:
    return queue.queue(
        session,
        share=queue.share_of(settings),
        stream_id=stream.id,
        name="sample",
        key=records.sampling_key(stream.id),
        spec=queue.spec(
            settings,
            model=evaluation.model_of(session, live, settings),
            work=MeasureWork(sources=(), training=settings.training, sample=SampleWork()),
        ),
    )
