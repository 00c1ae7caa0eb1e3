"""What a version's mixture did to its losses: what a run that re-weighted left, or what the lineage records of any."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import Conflict
from orchestrator.flow import records
from orchestrator.service.names import VersionName
from orchestrator.service.views import common
from orchestrator.service.views.versions import artifacts_of
from storage.tables import Decision, EvalSet, Evaluation, Plan, Stream, Version, VersionBatch, VersionParent
from strategies.agent.trajectories import Trajectory, read
from strategies.contract import Plan as PlanRecord
from strategies.contract import Signals
from strategies.planning.mixing import MAIN
from strategies.planning.recorded import recorded
from strategies.planning.trunk import TRUNK

LEFT = "evidence/trajectory"


def show_trajectory(app: App, name: VersionName) -> Trajectory:
    """The version's run as an agent may learn from it.

    Raises:
        NotFound: no such stream or version.
        Conflict: it was not trained on a mixture, or its domains were not measured before and after.
    """
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        version = common.find_version(session, stream, name.number)
        left = _left(app, artifacts_of(session, version.id))
        found = _recorded(session, stream, version) if left is None else left
    if found is None:
        raise Conflict(
            f"{stream.name}/{version.number} has no trajectory: it was not trained on a mixture, or its domains have"
            " no eval sets that were measured before and after"
        )
    return found


def _left(app: App, artifacts: Mapping[str, str]) -> Trajectory | None:
    """What the run left itself: the result, the trunk behind it, or the first of the siblings that became it."""
    beside = (f"{LEFT}/{MAIN}-", f"{LEFT}/{TRUNK}")
    manifests = [one for role, one in sorted(artifacts.items()) if role == LEFT or role.startswith(beside)]
    if not manifests:
        return None
    (entry,) = app.store.read_manifest(manifests[0]).entries
    return next(read(app.store.path(entry.object_hash)))


def _recorded(session: Session, stream: Stream, version: Version) -> Trajectory | None:
    plan = session.scalar(select(Plan).where(Plan.decision_id == version.decision_id)) if version.decision_id else None
    start = session.scalar(
        select(VersionParent.parent_id).where(VersionParent.child_id == version.id, VersionParent.role == "init")
    )
    if plan is None or start is None:
        return None
    before, after = (_losses(session, one) for one in (start, version.id))
    both = before.keys() & after.keys()
    return recorded(
        PlanRecord.model_validate(plan.spec),
        Signals.model_validate(session.get_one(Decision, version.decision_id).signals),
        before=dict(before[one] for one in sorted(both)),
        after=dict(after[one] for one in sorted(both)),
        environment=stream.name,
        jobs=version.facts.get("jobs", {}),
        data=_data(session, version),
    )


def _losses(session: Session, version_id: int) -> dict[tuple[int, str, str], tuple[str, float]]:
    """Set, its bytes and how they were measured -> the set's name, and the loss on its ``select`` half."""
    rows = session.execute(
        select(Evaluation, EvalSet.name)
        .join(EvalSet, EvalSet.id == Evaluation.eval_set_id)
        .where(Evaluation.version_id == version_id)
    )
    found = {
        (one.eval_set_id, one.eval_set_hash, one.settings_hash): (
            name,
            one.value_select if one.metric == "loss" else one.details.get("loss_select"),
        )
        for one, name in rows
    }
    return {key: (name, loss) for key, (name, loss) in found.items() if loss is not None}


def _data(session: Session, version: Version) -> dict[str, str]:
    rows = session.scalars(select(VersionBatch).where(VersionBatch.version_id == version.id)).all()
    batches = records.batches_by_id(session, [row.batch_id for row in rows])
    return {records.source_name(batches[row.batch_id]): row.snapshot_hash for row in rows}
