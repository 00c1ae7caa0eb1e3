"""The probe between measuring and deciding: one job a decision, which goes on after a restart as other jobs do."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.flow import evaluation, records
from orchestrator.flow.job import SymbolicFiles, forbidden, source_file
from orchestrator.jobs import queue
from orchestrator.settings import StreamSettings
from storage.states import JOB_GAVE_UP
from storage.tables import Batch, Decision, EvalSet, Job, Version
from strategies.chooser import choice
from strategies.chooser.probing import Probing
from strategies.contract import ModelFiles, ProbeWork, QueuedSpec, Signals, SourceFile, TrialStart
from strategies.contract.probe import ProbeResult
from strategies.planning.resolution import Files, start


def advance(session: Session, decision: Decision, evidence: Signals, settings: StreamSettings) -> Signals | None:
    """The evidence with what the probe found, where one is asked for; None while it runs.

    A probe that cannot be run or fails leaves the rules' choice; the reason is recorded. Raises BadPlan.
    """
    job = session.scalar(select(Job).where(Job.key == _key(decision)))
    if job is None:
        probing = choice.probe(evidence, settings.strategy)
        if probing is None:
            return evidence
        if not probing.trials:
            return _with(evidence, ProbeResult(chosen=None, reason=probing.reason))
        job = _queue(session, decision, evidence, settings, probing)
    if job.state == "succeeded":
        found = records.result_of(job).facts["probe"]
        return _with(evidence, ProbeResult.model_validate({**found, "job": job.id}))
    if job.state in JOB_GAVE_UP:
        reason = f"the probe {job.state} ({job.error}); `rekindle job logs {job.id}` shows why"
        return _with(evidence, ProbeResult(job=job.id, chosen=None, reason=reason))
    return None


def _key(decision: Decision) -> str:
    return f"probe:{decision.id}"


def _with(evidence: Signals, found: ProbeResult) -> Signals:
    around = evidence.circumstances.model_copy(update={"probe": found})
    return evidence.model_copy(update={"circumstances": around})


def _queue(session: Session, decision: Decision, evidence: Signals, settings: StreamSettings, probing: Probing) -> Job:
    return queue.queue(
        session,
        share=queue.share_of(settings),
        stream_id=decision.stream_id,
        name="probe",
        key=_key(decision),
        spec=_spec(session, decision, evidence, settings, probing),
        decision_id=decision.id,
    )


def _spec(
    session: Session, decision: Decision, evidence: Signals, settings: StreamSettings, probing: Probing
) -> QueuedSpec:
    parent = session.get_one(Version, decision.parent_version_id)
    sets = evaluation.sets_about(session, decision.stream_id, decision.batches)
    work = ProbeWork(
        trials=probing.trials,
        starts=_starts(evidence, probing, SymbolicFiles(session, decision, settings)),
        sizes=tuple(one.candidates for one in probing.rounds),
        slices=probing.slices,
        incumbent=probing.incumbent,
        sources=_sources(session, decision, evidence),
        forbidden=forbidden(session, decision.stream_id),
        sets=tuple(evaluation.eval_file(one) for one in sets),
        new=tuple(one.name for one in sets if _is_new(one, decision)),
        known=tuple(records.known_labels(session, parent)),
        documents=probing.documents,
        training=settings.training,
    )
    return queue.spec(settings, model=_knowing(evidence, evaluation.model_of(session, parent, settings)), work=work)


def _starts(evidence: Signals, probing: Probing, files: Files) -> tuple[TrialStart, ...]:
    """What each candidate starts from, as its retrain would."""
    found = {label: start(templates[0], files) for label, templates in probing.trials.items()}
    return tuple(
        TrialStart(candidate=label, model=_knowing(evidence, model), optimizer=optimizer)
        for label, (model, optimizer) in found.items()
    )


def _knowing(evidence: Signals, model: ModelFiles) -> ModelFiles:
    """The model with every class that the version to be made must know."""
    return model.model_copy(update={"labels": evidence.labels})


def _is_new(one: EvalSet, decision: Decision) -> bool:
    return one.batch_id in decision.batches


def _sources(session: Session, decision: Decision, evidence: Signals) -> tuple[SourceFile, ...]:
    """Every source that a trial may draw from; each trial takes those that its mixing names."""
    anchor = [] if evidence.anchor is None else [evidence.anchor]
    ids = [one.batch for one in (*evidence.new, *evidence.old, *anchor)]
    found: dict[int, Batch] = records.batches_by_id(session, ids)
    return tuple(source_file(batch, "new" if batch.id in decision.batches else "old") for batch in found.values())
