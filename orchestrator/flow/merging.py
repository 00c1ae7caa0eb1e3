"""Beside the flow: versions merged at a user's word into one more candidate, measured and gated like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, NotFound
from orchestrator.flow import evaluation, merge_job, records
from orchestrator.flow.job import source_file
from orchestrator.flow.merge_job import Form, Wanted
from storage import lineage, manifests
from storage.states import JOB_GAVE_UP
from storage.tables import Batch, Job, Stream, Version
from strategies.contract import MergeSet, MergeWork, SourceFile
from strategies.settings.merging import (
    FisherMerge,
    GreedySoupMerge,
    HalfResetMerge,
    Merge,
    combining,
    goes_back,
    wrong_weights,
)

JOB = "merge"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A merge as asked for, versions by number.

    ``base`` None: the nearest version that all of them came from. ``into`` None: as
    :func:`~orchestrator.flow.merge_job.form_of` finds.
    """

    versions: Sequence[int]
    method: Merge
    weights: Sequence[float] = ()
    base: int | None = None
    into: Form | None = None

    @property
    def goes_back(self) -> bool:
        """Whether the second version goes back towards the first, instead of several becoming one."""
        return goes_back(self.method)


def request(app: App, stream_name: str, question: Question) -> Job:
    """Queue the merge, or find the job that was queued for the same question.

    Raises:
        NotFound: no such stream or version.
        BadInput: the versions, the method, the weights and the form do not go together.
        Conflict: the files of a version were collected, or the same merge failed before.
    """
    with app.database.write() as session:
        stream = records.stream_by_name(session, stream_name)
        settings = records.settings_of(session, stream.id)
        spec = merge_job.spec_of(session, resolve(session, stream, question), settings)
        key = f"{JOB}:{stream.id}:{records.fingerprint(spec.model_dump(mode='json'))}"
        job = merge_job.queue_merge(session, stream, spec, settings, name=JOB, key=key)
        if job.state in JOB_GAVE_UP:
            raise Conflict(f"this merge {job.state} before: {job.error}; `rekindle job retry {job.id}` tries it again")
    app.wake.set()
    return job


def step(app: App) -> bool:
    """Make a candidate of every merge that has succeeded."""
    with app.database.read() as session:
        if not _finished(session):
            return False
    with app.database.write() as session:
        for job in _finished(session):
            merge_job.make_version(app, session, job, strategy=f"{JOB} {records.work_of(job, MergeWork).method.kind}")
    return True


def resolve(session: Session, stream: Stream, question: Question) -> Wanted:
    """The versions, the base and the files that a question means.

    Raises:
        As :func:`request`.
    """
    _check(question)
    parents = [_version(session, stream, number) for number in question.versions]
    base, members = _base_and_members(session, stream, question, parents)
    _check_classes(session, stream, question, members)
    _check_names(session, question, members)
    return Wanted(
        method=question.method,
        base=base,
        members=members,
        weights=list(question.weights) or [1.0] * len(members),
        into=merge_job.form_of(session, base, members, question.method, question.into),
        sets=_sets(session, members) if isinstance(question.method, GreedySoupMerge) else (),
        rows=[_rows(session, stream, one) for one in members]
        if isinstance(combining(question.method), FisherMerge)
        else (),
    )


def _finished(session: Session) -> Sequence[Job]:
    made = select(Version.job_id).where(Version.job_id.is_not(None))
    mine = select(Job).where(Job.kind == "merge", Job.name == JOB, Job.plan_id.is_(None), Job.state == "succeeded")
    return session.scalars(mine.where(Job.id.not_in(made)).order_by(Job.id)).all()


def _check(question: Question) -> None:
    numbers, kind = question.versions, question.method.kind
    if len(numbers) < 2 or len(set(numbers)) != len(numbers):
        raise BadInput("a merge takes at least two versions, each once; name them as NAME/3 NAME/5")
    if question.goes_back and len(numbers) != 2:
        raise BadInput(f"{kind} takes two versions: the one to go back towards, then the one that goes back")
    if question.goes_back and question.base is not None:
        raise BadInput(f"{kind} goes back towards the version named first; leave the base out")
    wrong = wrong_weights(question.method, question.weights)
    if wrong is not None:
        raise BadInput(wrong)
    if question.weights and len(question.weights) != len(numbers):
        raise BadInput(f"{len(numbers)} versions need {len(numbers)} weights, not {len(question.weights)}")


def _version(session: Session, stream: Stream, number: int) -> Version:
    label = f"{stream.name}/{number}"
    version = lineage.version_by_number(session, stream.id, number)
    if version is None:
        raise NotFound(f"there is no version {label}; `rekindle version list {stream.name}` shows them")
    if merge_job.is_bank(session, version):
        raise BadInput(f"{label} is a bank of adapters, which no merge takes; its own consolidation joins them")
    answer = [one for role, one in records.artifacts_of(session, version.id).items() if role.startswith("answer/")]
    if not all(manifests.is_available(session, one) for one in answer):
        raise Conflict(f"the files of {label} were collected; train it again")
    return version


def _base_and_members(
    session: Session, stream: Stream, question: Question, parents: Sequence[Version]
) -> tuple[Version, Sequence[Version]]:
    if question.goes_back:
        return parents[0], parents[1:]
    if question.base is not None:
        return _version(session, stream, question.base), parents
    return _common_ancestor(session, stream, parents), parents


def _common_ancestor(session: Session, stream: Stream, parents: Sequence[Version]) -> Version:
    """The nearest version that all came from; one of them only where nothing is above it, as its change would be 0."""
    above = [set(lineage.ancestors(session, one.id)) for one in parents]
    shared = set.intersection(*above) or set.intersection(
        *({one.id, *line} for one, line in zip(parents, above, strict=True))
    )
    if not shared:
        names = " and ".join(f"{stream.name}/{one.number}" for one in parents)
        raise BadInput(f"{names} have no common ancestor, as they stem from different base models; merge within one")
    return _version(session, stream, session.get_one(Version, max(shared)).number)


def _check_classes(session: Session, stream: Stream, question: Question, members: Sequence[Version]) -> None:
    known = {one.number: records.known_labels(session, one) for one in members}
    most = max(known, key=lambda number: len(known[number]))
    for number, labels in known.items():
        if bool(labels) != bool(known[most]):
            raise BadInput(
                f"{stream.name}/{number} has no trained classes yet and {stream.name}/{most} has {len(known[most])}; "
                "merge versions that both were taught some"
            )
        if labels != known[most][: len(labels)]:
            raise BadInput(
                f"the {len(known[most])} classes of {stream.name}/{most} do not begin with the {len(labels)} of "
                f"{stream.name}/{number}; {question.method.kind} takes versions of one growing list of classes"
            )


def _check_names(session: Session, question: Question, members: Sequence[Version]) -> None:
    """A half-reset names tensors of the model that goes back; those of an adapter its job alone knows."""
    method = combining(question.method)
    found = records.artifacts_of(session, members[0].id)
    if not isinstance(method, HalfResetMerge) or "answer/adapter" in found:
        return
    unknown = sorted(set(method.names or ()) - manifests.tensors(session, found["answer/model"]))
    if unknown:
        raise BadInput(f"half-reset names {unknown[0]}, which is no tensor of version {members[0].number}")


def _sets(session: Session, members: Sequence[Version]) -> list[MergeSet]:
    """What a greedy soup chooses by: every set that one of its members is judged on."""
    judged = {one.id: one for member in members for one in evaluation.judged_sets(session, member)}
    found = merge_job.with_select(session, judged.values())
    if not found:
        raise BadInput("greedy-soup chooses by select documents of eval sets, and there are none; choose soup")
    return [MergeSet(file=evaluation.eval_file(one)) for one in found]


def _rows(session: Session, stream: Stream, version: Version) -> SourceFile:
    """Rows to estimate Fisher information from: of the newest batch that was trained, else of the anchor."""
    behind = evaluation.data_behind(session, version)
    usable = select(Batch).where(Batch.id.in_(behind), Batch.state.in_(("pending", "trained")))
    found = [*records.anchor_batches(session, stream.id), *session.scalars(usable.order_by(Batch.id))]
    if not found:
        raise BadInput(f"{stream.name}/{version.number} has no batch to estimate Fisher information from; choose soup")
    return source_file(found[-1], "old")
