"""``python -m orchestrator.importing JOB_DIRECTORY STORE_ROOT``: hash and store what a finished job left.

A process of its own, without torch and without SQL, so that the daemon never hashes and never waits. Doing it twice is
no harm: the store names bytes by their hash. ``imported.json``, written last, says what was stored.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field

from storage.artifacts import ArtifactStore
from storage.errors import ArtifactRefused, StorageError
from storage.files import read_json, write_json_atomic
from storage.folders import manifests_in
from storage.patches import Span, Stayed
from strategies.contract import EXIT_REFUSED, JobResult, JobSpec, TrainWork
from strategies.parts import HalfSelection
from strategies.settings import Closed

JOB = "job.json"
RESULT = "result.json"
IMPORTED = "imported.json"


class StoredFile(Closed):
    """An object of the store."""

    hash: str
    bytes: int


class ImportReport(Closed):
    """``imported.json``: manifest hashes by role, objects by the path they had in the job directory."""

    format: int = Field(1, ge=1, le=1)
    artifacts: dict[str, str]
    results: dict[str, StoredFile]


class ResultRefused(Exception):  # noqa: N818 - named like the store's own refusals
    """What the job left cannot be stored, however often it is tried."""


def main(arguments: list[str]) -> int:
    """Import one directory; 0 done, 65 refused, 1 worth another try."""
    directory, root = (Path(argument) for argument in arguments)
    try:
        report = import_result(directory, ArtifactStore(root))
    except (ResultRefused, ArtifactRefused) as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    except (OSError, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    write_json_atomic(directory / IMPORTED, report.model_dump(mode="json"))
    return 0


def import_result(directory: Path, store: ArtifactStore) -> ImportReport:
    """Store all artifact folders and per-example results of one job.

    Raises:
        ResultRefused: ``result.json`` is malformed, or points outside the directory or at nothing.
        StorageError, OSError: the store did not take it.
    """
    result = read_result(directory)
    stayed = _stayed(directory)
    artifacts = {
        role: store.add_folder(inside(directory, path), stayed).hash for role, path in sorted(result.artifacts.items())
    }
    results: dict[str, StoredFile] = {}
    for path in sorted({score.results for score in result.scores}):
        stored = store.add_file(inside(directory, path))
        results[path] = StoredFile(hash=stored.hash, bytes=stored.bytes)
    return ImportReport(artifacts=artifacts, results=results)


def read_result(directory: Path) -> JobResult:
    """The job's own account of what it made.

    Raises:
        ResultRefused: it is not one.
        OSError: it cannot be read.
    """
    try:
        return JobResult.model_validate(read_json(directory / RESULT))
    except ValueError as error:
        first = str(error).replace("\n", " ")[:300]
        raise ResultRefused(f"{directory / RESULT} is not a result: {first}") from error


def _stayed(directory: Path) -> Stayed | None:
    """What a training was to leave as it is of the fused tensors of the model that it began with.

    It spares bytes and nothing else: what cannot be told, as of a job that an earlier version began, is stored whole.
    """
    try:
        spec = JobSpec.model_validate(read_json(directory / JOB))
    except (OSError, ValueError):
        return None
    selection = spec.work.template.selection if isinstance(spec.work, TrainWork) else None
    manifests = manifests_in(Path(spec.model.path))
    if not isinstance(selection, HalfSelection) or not selection.slices or not manifests:
        return None
    spans = {name: [Span(one.dim, one.start, one.stop) for one in some] for name, some in selection.slices.items()}
    return Stayed(manifests=manifests, spans=spans)


def inside(directory: Path, relative: str) -> Path:
    """The place a result names, which must exist and lie inside the directory with all links resolved.

    Raises:
        ResultRefused: it does not.
    """
    place = (directory / relative).resolve()
    if not place.is_relative_to(directory.resolve()) or place == directory.resolve():
        raise ResultRefused(f"the result names {relative!r}, which lies outside the job directory")
    if not place.exists():
        raise ResultRefused(f"the result names {relative!r}, which the job did not leave")
    return place


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
