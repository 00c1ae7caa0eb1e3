"""Tiny runs on constant mixtures: what RegMix's regression learns from (METHODS 4.2, step 6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from storage.files import write_atomic
from strategies.agent.environment import DomainTokens, ProxyEnvironment
from strategies.agent.rollout import constant, rollout
from strategies.agent.rows import Ids
from strategies.contract import Consumed, JobResult, JobSpec, ProxyWork, SourceFile
from strategies.contract.domains import batch_of
from strategies.contract.regmix import ProxyRun
from strategies.errors import BadState, Refused
from strategies.inference.encoding import Encoder, messages_of
from strategies.inference.load import load_tokenizer
from strategies.inference.precision import device_for
from strategies.jobs.consumed import consumed
from strategies.jobs.dividing import classes_by, parts
from strategies.jobs.runtime import Runtime
from strategies.settings import Task
from strategies.training.data import Documents, HeldOut, eval_side, training_side

RUNS_FILE = "runs.jsonl"
MOST_TOKENS = 1_000_000
"""Of a domain: tiny runs see no more."""


def run_proxies(spec: JobSpec, work: ProxyWork, runtime: Runtime) -> JobResult:
    """One run a mixture; those that an earlier attempt finished are not made again."""
    template = work.template
    runtime.enter("reading data")
    data, used = _data(spec, work, runtime)
    runtime.enter("making the shared start")
    device = device_for(spec.device)
    environment = ProxyEnvironment(f"{spec.stream}/{spec.name}", data, template.proxy, device=device)
    names = [domain.name for domain in environment.domains]
    path = runtime.directory / "checkpoints" / RUNS_FILE
    done = _earlier(spec)[: len(template.mixtures)]
    _keep(path, done)
    runtime.enter("training proxies", steps=len(template.mixtures), step=len(done))
    for weights in template.mixtures[len(done) :]:
        runtime.check()
        mixture = [weights.get(name, 0.0) for name in names]
        run = rollout(environment, constant(mixture), seed=spec.seed)
        done.append(ProxyRun(weights=weights, losses=dict(zip(names, run.steps[-1].losses, strict=True))))
        _keep(path, done)
        runtime.step, runtime.tokens = len(done), environment.trained_tokens
    _keep(runtime.directory / "out" / "runs" / RUNS_FILE, done)
    return JobResult(
        kind="proxy",
        artifacts={"evidence/runs": "out/runs"},
        consumed=tuple(_consumed(source, used, runtime.directory) for source in work.sources),
        facts={
            "runs": len(done),
            "device": str(device),
            "tokens": environment.trained_tokens,
            "tokens_per_s": round(environment.tokens_per_s, 1),
            "provenance": environment.header(spec.seed).provenance.model_dump(mode="json"),
        },
    )


def read_runs(folder: Path) -> list[ProxyRun]:
    """What :func:`run_proxies` left."""
    try:
        return [ProxyRun.model_validate_json(line) for line in (folder / RUNS_FILE).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise BadState(f"the tiny runs at {folder} cannot be read; ask for the retrain again") from error


def _earlier(spec: JobSpec) -> list[ProxyRun]:
    """The most runs that an earlier attempt finished."""
    folders = [Path(folder) / "checkpoints" for folder in spec.resume_from]
    found = [read_runs(folder) for folder in folders if (folder / RUNS_FILE).is_file()]
    return max(found, key=len, default=[])


def _keep(path: Path, runs: list[ProxyRun]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(run.model_dump_json() + "\n" for run in runs).encode())


def _consumed(source: SourceFile, used: Mapping[str, Documents], directory: Path) -> Consumed:
    """Documents that the tiny runs could draw; no rows, which are those that a version was trained on."""
    own = [found for name, found in used.items() if batch_of(name) == source.name]
    flags = np.zeros(max((found.size for found in own), default=0), dtype=np.bool_)
    for found in own:
        flags[found.rows] = True
    return consumed(source, flags, samples=0, directory=directory)


def _data(spec: JobSpec, work: ProxyWork, runtime: Runtime) -> tuple[list[DomainTokens], dict[str, Documents]]:
    """Token ids of every domain, to train on and of its eval sets' select halves; and the documents that gave them."""
    mixing = work.template.mixing
    encoder = Encoder(load_tokenizer(spec.model), work.template.training.max_length)
    classes = classes_by(mixing.divide, work.space, spec.task)
    whole = {source.name: training_side(source, spec.task) for source in work.sources}
    held_out = HeldOut.of(work.forbidden)
    for source, documents in whole.items():
        held_out.refuse(source, documents)
    sources = {name: found for batch, own in whole.items() for name, found in parts(batch, own, classes).items()}
    held = {
        name: found
        for file in work.select
        for name, found in parts(file.name, eval_side(file, spec.task, half="select"), classes).items()
    }
    made = []
    used: dict[str, Documents] = {}
    for name, own in mixing.domains.items():
        runtime.check()
        train, taken = _ids({one: sources[one] for one in own if one in sources}, encoder, spec.task)
        sets = {one: held[one] for one in mixing.measured.get(name, ()) if one in held}
        validation, _ = _ids(sets, encoder, spec.task)
        made.append(_domain(name, name in work.template.targets, train, validation, work.template.proxy.length))
        used |= taken
    return made, used


def _domain(name: str, new: bool, train: Ids, validation: Ids, row: int) -> DomainTokens:
    """A domain whose eval sets do not fill a row is measured on the last eighth of its own tokens, not trained on."""
    if len(validation) < row:
        cut = len(train) - max(row, len(train) // 8)
        if cut < row:
            raise Refused(f"domain {name} has {len(train)} tokens, too few for tiny runs; wait for more data")
        train, validation = train[:cut], train[cut:]
    return DomainTokens(name=name, new=new, train=train, validation=validation)


def _ids(documents: Mapping[str, Documents], encoder: Encoder, task: Task) -> tuple[Ids, dict[str, Documents]]:
    """At most :data:`MOST_TOKENS` ids, and the documents that they are of."""
    found: list[int] = []
    used = {}
    for name, own in documents.items():
        count = 0
        for ids in _encoded(own, encoder, task):
            if len(found) >= MOST_TOKENS:
                break
            found += ids
            count += 1
        used[name] = own.first(count)
    return np.asarray(found[:MOST_TOKENS], dtype=np.int64), used


def _encoded(documents: Documents, encoder: Encoder, task: Task) -> list[list[int]]:
    if task == "sft":
        return [list(ids) for ids, _ in encoder.dialogues(messages_of(documents.column("messages")))]
    return [list(ids) for ids in encoder.documents(list(map(str, documents.column("text"))))]
