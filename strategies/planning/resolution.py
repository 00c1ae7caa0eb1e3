"""From a plan's template to a job's work: its references and names become files, wherever those are kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from strategies.contract import (
    EvalFile,
    FitTemplate,
    FitWork,
    MergeParent,
    MergeSet,
    MergeTemplate,
    MergeWork,
    ModelFiles,
    ProxyTemplate,
    ProxyWork,
    SourceFile,
    Template,
    TrainTemplate,
    TrainWork,
    Work,
)
from strategies.contract.domains import batch_of
from strategies.contract.graph import ADAPTER, BANK, LIVE, MODEL, START, Artifact, parse_reference
from strategies.parts import WeightedMixing


class Files(Protocol):
    """Where versions, batches, eval sets and the results of a plan's earlier jobs lie."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that the version to be made must know, in head order."""
        ...

    def version(self, owner: str) -> ModelFiles:
        """What ``base`` or ``live`` answers with, and the classes it knows."""
        ...

    def artifact(self, artifact: Artifact) -> str:
        """The folder of an artifact of a version or an earlier job."""
        ...

    def batches(self, names: Collection[str]) -> dict[str, SourceFile]:
        """Snapshots by the batches' names; one that can no longer be drawn from is left out."""
        ...

    def sets(self, names: Collection[str]) -> tuple[EvalFile, ...]:
        """Eval sets by name, those that are still kept."""
        ...

    def forbidden(self) -> tuple[EvalFile, ...]:
        """Eval sets that no training row may be in."""
        ...


def resolve(template: Template, files: Files) -> tuple[ModelFiles, Work]:
    """The model that a job starts from, and its work."""
    match template:
        case TrainTemplate():
            model, optimizer = start(template, files)
            return model, _train(template, optimizer, files)
        case ProxyTemplate():
            return _started(template.init, False, files), _proxy(template, files)
        case FitTemplate():
            runs = tuple(_place(run, files) for run in template.runs)
            return _started(template.init, False, files), FitWork(template=template, runs=runs)
        case MergeTemplate():
            return _member(template.init, files), _merge(template, files)


def start(template: TrainTemplate, files: Files) -> tuple[ModelFiles, str | None]:
    """The model that a train job starts from, and the folder of its moments."""
    model = _started(template.init, template.selection.lora is not None, files)
    return model, _found(template.optimizer, files)


def _train(template: TrainTemplate, optimizer: str | None, files: Files) -> TrainWork:
    mixing = template.mixing
    weighted = mixing if isinstance(mixing, WeightedMixing) else None
    has_lora = template.selection.lora is not None
    return TrainWork(
        template=template,
        sources=_sources(template, files),
        forbidden=files.forbidden(),
        select=_select(weighted, files) if weighted else (),
        optimizer=optimizer,
        cursor=_found(mixing.cursor, files),
        mixture=_found(weighted.mixture, files) if weighted else None,
        space=weighted.space if weighted else None,
        reference=None
        if template.reference is None
        else _started(template.reference, has_lora, files, owner=_owner(template.init)),
    )


def _proxy(template: ProxyTemplate, files: Files) -> ProxyWork:
    return ProxyWork(
        template=template,
        sources=_sources(template, files),
        forbidden=files.forbidden(),
        select=_select(template.mixing, files),
        space=template.mixing.space,
    )


def _merge(template: MergeTemplate, files: Files) -> MergeWork:
    rows = files.batches(set(template.rows.values()))
    return MergeWork(
        base=START,
        method=template.method,
        parents=tuple(
            MergeParent(
                role=role,
                model=_member(reference, files, owner=_owner(template.init)),
                rows=_as_old(rows[template.rows[role]]) if role in template.rows else None,
            )
            for role, reference in template.members.items()
        ),
        into=template.into,
        sets=tuple(MergeSet(file=one) for one in files.sets(template.sets)),
        training=template.training,
    )


def _owner(init: str) -> str:
    """The version that a plan's jobs stand on, by what one of them starts from."""
    start = parse_reference(init)
    return LIVE if start.is_job else start.of


def _member(reference: str, files: Files, *, owner: str = LIVE) -> ModelFiles:
    artifact = parse_reference(reference)
    if not artifact.is_job:
        return files.version(artifact.of)
    return _started(reference, artifact.role == ADAPTER, files, owner=owner)


def _started(reference: str, has_adapter: bool, files: Files, *, owner: str = LIVE) -> ModelFiles:
    """A version's answer or trunk, or what an earlier job of the plan made; it must know every class.

    What a job made stands on the folder of ``owner``, the version that the job began at.
    """
    artifact = parse_reference(reference)
    origin = files.version(owner if artifact.is_job else artifact.of)
    model = origin.model_copy(update={"labels": files.labels})
    if not artifact.is_job and artifact.role in (MODEL, BANK):
        return model
    if has_adapter:
        adapter = reference.replace(MODEL, ADAPTER)
        return model.model_copy(update={"adapter": _place(adapter, files)})
    return model.model_copy(update={"adapter": None, "path": files.artifact(artifact)})


def _sources(template: TrainTemplate | ProxyTemplate, files: Files) -> tuple[SourceFile, ...]:
    mixing = template.mixing
    new = {batch_of(source) for source in mixing.new}
    found = files.batches({batch_of(source) for source in mixing.sources})
    return tuple(
        one.model_copy(update={"role": "new" if name in new else "old"})
        for name, one in sorted(found.items(), key=lambda item: item[1].batch)
    )


def _as_old(source: SourceFile) -> SourceFile:
    return source.model_copy(update={"role": "old"})


def _select(mixing: WeightedMixing, files: Files) -> tuple[EvalFile, ...]:
    """The eval sets that stand for the mixing's domains."""
    return files.sets({batch_of(name) for names in mixing.measured.values() for name in names})


def _place(reference: str, files: Files) -> str:
    return files.artifact(parse_reference(reference))


def _found(reference: str | None, files: Files) -> str | None:
    return None if reference is None else _place(reference, files)
