"""What a train job leaves: the model, states for the next stage, evidence, consumed rows, facts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from strategies.consolidation import TaskMean
from strategies.contract import Consumed, JobResult, JobSpec, SourceFile, TrainWork
from strategies.contract.domains import batch_of
from strategies.inference.export import save_adapter, save_model, save_tokenizer
from strategies.inference.export_bank import write_reader
from strategies.inference.load import read_bank
from strategies.jobs import mixing as mixings
from strategies.jobs.bank import Trained, write_bank
from strategies.jobs.consumed import consumed
from strategies.jobs.facts import common
from strategies.jobs.preparing import Prepared
from strategies.jobs.runtime import Runtime
from strategies.jobs.state import save_cursor, save_moments
from strategies.mixing.trajectory import MixturePoint
from strategies.mixing.weighted import WeightedMixer
from strategies.objective.group_dro import GroupDro
from strategies.parts import AdapterSelection
from strategies.settings import Json
from strategies.training.loop import Loop, Progress
from strategies.training.parameters import counts, is_adapted, moments


def leave(spec: JobSpec, work: TrainWork, prepared: Prepared, loop: Loop, runtime: Runtime) -> JobResult:
    """Write all that the job leaves below ``out/`` once the loop has ended, and name it."""
    facts = _facts(spec, work, prepared, loop)
    if prepared.adaptation is not None:
        runtime.enter("making the bank")
        facts["bank"] = _bank(spec, work, prepared, loop, runtime)
    runtime.enter("saving", stoppable=False)
    course = _course(loop)
    evidence = _evidence(spec, work, loop, course, runtime.directory / "out")
    if course:
        facts["mixture"] = mixings.thinned(course)
    return JobResult(
        kind="train",
        artifacts={**_artifacts(spec, work, prepared, loop.progress, runtime.workspace), **evidence},
        consumed=tuple(_consumed(source, prepared, loop.progress, runtime.workspace) for source in work.sources),
        labels=prepared.labels,
        facts=facts,
    )


def _bank(spec: JobSpec, work: TrainWork, prepared: Prepared, loop: Loop, runtime: Runtime) -> Json:
    merging = loop.parts["consolidation"]
    assert prepared.adaptation is not None
    assert isinstance(merging, TaskMean)
    trained = Trained(
        adaptation=prepared.adaptation,
        rows=prepared.rows,
        encoder=prepared.encoder,
        labels=prepared.labels,
        precision=prepared.precision,
        settings=merging.settings,
        training=work.template.training,
        pad=prepared.loaded.tokenizer.pad_token_id,
        seed=spec.seed,
        tick=runtime.check,
    )
    folder = runtime.workspace / "out" / "bank"
    made = write_bank(trained, folder)
    write_reader(folder, read_bank(folder), place=".")
    return {**merging.facts, **made}


def _artifacts(
    spec: JobSpec, work: TrainWork, prepared: Prepared, progress: Progress, directory: Path
) -> dict[str, str]:
    bank = isinstance(work.template.selection, AdapterSelection)
    lora = is_adapted(prepared.run.model)
    answer = "bank" if bank else "adapter" if lora else "model"
    artifacts = {f"answer/{answer}": f"out/{answer}"}
    out = directory / "out"
    out.mkdir(exist_ok=True)
    if "state/optimizer" in work.template.state:
        artifacts["state/optimizer"] = "out/optimizer"
        save_moments(moments(prepared.run.optimizer, prepared.run.parameters), out / "optimizer")
    if "state/mixing" in work.template.state:
        artifacts["state/mixing"] = "out/mixing"
        save_cursor(progress.mixing, out / "mixing")
    if "state/trunk" in work.template.state:
        artifacts["state/trunk"] = f"out/{answer}"
    model = prepared.run.model
    if bank:
        return artifacts
    if lora:
        save_adapter(model, out / "adapter", labels=prepared.labels)
        save_tokenizer(prepared.loaded.tokenizer, out / "adapter", parent=spec.model.path)
    else:
        save_model(
            model,
            out / "model",
            tokenizer=prepared.loaded.tokenizer,
            parent=spec.model.path,
            dtype=prepared.loaded.published_dtype,
        )
    return artifacts


def _course(loop: Loop) -> Sequence[MixturePoint]:
    """Every mixture that was in force, or the weights that group DRO gave the domains; none of a plain replay."""
    if isinstance(loop.objective, GroupDro):
        return loop.objective.trajectory()
    return loop.mixing.trajectory if isinstance(loop.mixing, WeightedMixer) else ()


def _mixture(loop: Loop) -> Mapping[str, float]:
    """What later jobs of the plan draw by: what group DRO found, or the weights that were in force last."""
    if isinstance(loop.objective, GroupDro):
        return loop.objective.mixture()
    assert isinstance(loop.mixing, WeightedMixer)
    return loop.mixing.weights()


def _evidence(spec: JobSpec, work: TrainWork, loop: Loop, course: Sequence[MixturePoint], out: Path) -> dict[str, str]:
    artifacts: dict[str, str] = {}
    if course:
        artifacts |= mixings.keep_course(spec, work, course, loop.progress.tokens, out)
    if "state/mixture" in work.template.state:
        mixings.write_mixture(out / "found", _mixture(loop))
        artifacts["state/mixture"] = "out/found"
    if work.space is not None:
        shutil.copytree(work.space, out / "space", dirs_exist_ok=True)
        artifacts["state/domains"] = "out/space"
    return artifacts


def _consumed(source: SourceFile, prepared: Prepared, progress: Progress, directory: Path) -> Consumed:
    """Documents that the batch's rows touched, those of all its parts together."""
    own = [name for name in prepared.rows if batch_of(name) == source.name]
    touched = [prepared.rows[name].touched(progress.ledger.drawn[name]) for name in own]
    flags = np.logical_or.reduce(touched) if touched else np.zeros(0, np.bool_)
    samples = sum(progress.ledger.samples[name] for name in own)
    return consumed(source, flags, samples=samples, directory=directory)


def _facts(spec: JobSpec, work: TrainWork, prepared: Prepared, loop: Loop) -> Json:
    progress = loop.progress
    return {
        **common(spec, prepared.precision),
        "steps": loop.run.step,
        "tokens": progress.tokens,
        "wall_s": round(progress.wall_s, 3),
        "cpu_s": round(progress.cpu_s, 3),
        "tokens_per_s": round(progress.tokens / max(progress.wall_s, 1e-9), 1),
        "losses": [[step, loss, lr] for step, loss, lr in progress.log.points],
        "final_loss": progress.log.last,
        "skipped_steps": len(progress.skipped),
        "resumed_from": progress.resumed_from,
        "micro_batch": loop.collate.micro,
        "packing": prepared.packing.facts(),
        "eval_documents_compared": prepared.compared,
        "fingerprint": loop.store.fingerprint,
        "sources": {
            name: {
                "sha256": next(source.sha256 for source in work.sources if source.name == batch_of(name)),
                "rows": len(rows),
                "tokens": rows.tokens,
                "dropped_tokens": rows.dropped,
            }
            for name, rows in prepared.rows.items()
        },
        **counts(prepared.run.model, prepared.run.parameters),
    }
