"""Merging versions into one more candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from orchestrator.app import App
from orchestrator.assignments import put
from orchestrator.errors import BadInput
from orchestrator.flow import evaluation, merge_job, merging
from orchestrator.service.records import MergeRecord
from orchestrator.service.settings import explain, is_none_of, refuse_non_finite
from orchestrator.service.views import common
from orchestrator.service.views.jobs import made_by
from strategies.settings.merging import BY_HAND, Merge


def merge(
    app: App,
    stream: str,
    versions: Sequence[int],
    *,
    method: str,
    settings: Mapping[str, Any],
    weights: Sequence[float],
    base: int | None,
    into: merge_job.Form | None,
    dry_run: bool,
) -> MergeRecord:
    """Queue a merge, or find the one that was queued for the same question; with ``dry_run`` only what it would be.

    Raises:
        NotFound: no such stream or version.
        BadInput: the method, its settings, the versions, the weights and the form do not go together.
        Conflict: the files of a version were collected, or the same merge failed before.
    """
    question = merging.Question(
        versions=versions, method=parse_method(method, settings), weights=weights, base=base, into=into
    )
    with app.database.read() as session:
        wanted = merging.resolve(session, common.find_stream(session, stream), question)
        behind = {batch for one in (wanted.base, *wanted.members) for batch in evaluation.data_behind(session, one)}
    record = MergeRecord(
        stream=stream,
        dry_run=dry_run,
        method=question.method.model_dump(mode="json"),
        base=wanted.base.number,
        parents=tuple(versions),
        weights=tuple(wanted.weights),
        into=wanted.into,
        batches=tuple(sorted(behind)),
    )
    if dry_run:
        return record
    job = merging.request(app, stream, question)
    with app.database.read() as session:
        return record.model_copy(update={"job": job.id, "state": job.state, "made": made_by(session, job.id)})


def parse_method(kind: str, settings: Mapping[str, Any]) -> Merge:
    """A method by its name and dotted settings.

    Raises:
        BadInput: there is no such method or setting, or a value is wrong.
    """
    model = BY_HAND.get(kind)
    if model is None:
        raise BadInput(f"method {kind!r} {is_none_of(kind, list(BY_HAND))}")
    raw: dict[str, Any] = {"kind": kind}
    for key, value in settings.items():
        put(raw, key, value)
    refuse_non_finite(raw)
    try:
        return cast(Merge, model.model_validate(raw))
    except ValidationError as error:
        raise BadInput(f"{kind}: {explain(error, model)}") from error
