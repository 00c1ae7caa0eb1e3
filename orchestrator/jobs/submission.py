"""From a job's symbolic spec to ``job.json``: every path a real one, every file in its place.

A big model may have to be copied, so this runs in a worker thread, on records alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import RekindleError
from orchestrator.importing import JOB
from orchestrator.jobs.executors.contract import Grant
from orchestrator.jobs.records import Case
from storage.artifacts import ArtifactStore
from storage.files import write_json_atomic
from strategies.contract import JobSpec


class UnresolvableSpec(RekindleError):  # noqa: N818 - named like the other errors that users see
    """The job's spec names something that is not there, or is not a job."""

    code = "unresolvable_spec"


@dataclass(frozen=True, kw_only=True)
class Order:
    """All that the making of one attempt's directory needs, without SQL."""

    job: int
    attempt: int
    stream: str
    name: str
    spec: Mapping[str, Any]
    threads: int
    directory: Path
    artifacts: Mapping[str, Mapping[str, str]]
    """Sibling name -> role -> manifest."""
    earlier: tuple[Path, ...]
    """Directories of earlier attempts, newest first."""


def order(case: Case, *, attempt: int, directory: Path, grant: Grant) -> Order:
    """The order for a new attempt of a queued job whose needs are met."""
    return Order(
        job=case.job.id,
        attempt=attempt,
        stream=case.stream,
        name=case.job.name,
        spec=case.job.spec,
        threads=grant.cpus,
        directory=directory,
        artifacts={one.name: one.artifacts or {} for one in case.needs.siblings},
        earlier=tuple(Path(one.directory) for one in reversed(case.attempts)),
    )


def prepare(made_to: Order, store: ArtifactStore, models: Path) -> None:
    """Make the directory and write ``job.json``; doing it again is no harm.

    Raises:
        UnresolvableSpec: the spec is not a job, or names what is not there.
        StorageError: something it names is missing or corrupt in the store.
        OSError: the disk does not take it.
    """
    spec = resolve(made_to, store, models)
    made_to.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The job counts from here how long no daemon has shown itself.
    (made_to.directory / "adopted.json").touch()
    write_json_atomic(made_to.directory / JOB, spec.model_dump(mode="json"))


def resolve(made_to: Order, store: ArtifactStore, models: Path) -> JobSpec:
    """The job's spec with real paths.

    Raises:
        As :func:`prepare`.
    """
    told = {
        **made_to.spec,
        "job": made_to.job,
        "attempt": made_to.attempt,
        "stream": made_to.stream,
        "name": made_to.name,
        "threads": made_to.threads,
        "resume_from": _resumable(made_to.earlier),
    }
    try:
        return JobSpec.placed(told, _Places(store, models, made_to.artifacts).real)
    except ValidationError as error:
        first = str(error).replace("\n", " ")[:300]
        raise UnresolvableSpec(f"the spec of job {made_to.job} is not one a job can run: {first}") from error


class _Places:
    """Where symbolic paths lie on disk."""

    def __init__(self, store: ArtifactStore, models: Path, artifacts: Mapping[str, Mapping[str, str]]) -> None:
        self._store = store
        self._models = models
        self._artifacts = artifacts

    def real(self, symbol: str) -> str:
        return str(self._path(symbol))

    def _path(self, symbol: str) -> Path:
        kind, _, rest = symbol.partition(":")
        if kind == "object" and rest:
            return self._store.path(rest)
        if kind == "manifest" and rest:
            return self._materialised(rest)
        if symbol.startswith("@"):
            return self._materialised(self._of_sibling(symbol))
        if Path(symbol).is_absolute():
            return Path(symbol)
        raise UnresolvableSpec(f"{symbol!r} is no path of a job; write manifest:HASH, object:HASH, @JOB/ROLE or /PATH")

    def _of_sibling(self, reference: str) -> str:
        name, _, role = reference[1:].partition("/")
        try:
            return self._artifacts[name][role]
        except KeyError:
            raise UnresolvableSpec(f"{reference} names nothing that a needed job has left; list it in needs") from None

    def _materialised(self, manifest: str) -> Path:
        target = self._models / manifest
        self._store.materialise(manifest, target)
        return target


def _resumable(earlier: Sequence[Path]) -> list[str]:
    return [str(directory) for directory in earlier if (directory / "checkpoints").is_dir()]
