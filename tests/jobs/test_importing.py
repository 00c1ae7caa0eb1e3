"""Importing, logs, clean-up and symbolic paths, on real directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.importing import IMPORTED, ResultRefused, import_result
from orchestrator.jobs import cleanup, logs, submission
from orchestrator.jobs.submission import Order, UnresolvableSpec, prepare, resolve
from storage.artifacts import ArtifactStore
from storage.database import now
from strategies.contract import FitWork, MeasureWork, MergeSet, MergeWork
from tests.jobs.conftest import Toys

SCORE = {
    "eval_set": 1,
    "name": "a",
    "sha256": "0" * 64,
    "metric": "loss",
    "value": 1,
    "value_select": 1,
    "value_judge": 1,
}
SCORE |= {"examples": 1, "tokens": 1, "bytes": 1, "results": "out/scores.parquet"}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A job directory as a finished job leaves it."""
    folder = tmp_path / "job"
    (folder / "out" / "model").mkdir(parents=True)
    (folder / "out" / "model" / "config.json").write_text("{}")
    (folder / "out" / "scores.parquet").write_bytes(b"rows")
    (folder / "out" / "rows.bits").write_bytes(b"\1")
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    write_result(folder, {"answer/model": "out/model"})
    return folder


def write_result(folder: Path, artifacts: dict[str, str]) -> None:
    (folder / "result.json").write_text(json.dumps({"kind": "train", "artifacts": artifacts, "scores": [SCORE]}))


def run(folder: Path, store: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "orchestrator.importing", str(folder), str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_importing_twice_stores_the_same_once(finished: Path, tmp_path: Path) -> None:
    assert run(finished, tmp_path / "store").returncode == 0
    first = (finished / IMPORTED).read_bytes()
    assert run(finished, tmp_path / "store").returncode == 0
    assert (finished / IMPORTED).read_bytes() == first
    report = json.loads(first)
    store = ArtifactStore(tmp_path / "store")
    assert store.path(report["results"]["out/scores.parquet"]["hash"]).read_bytes() == b"rows"
    assert [one.path for one in store.read_manifest(report["artifacts"]["answer/model"]).entries] == ["config.json"]


@pytest.mark.parametrize("path", ["..", "/etc", "out/../..", ".", "out/missing", "out/link"])
def test_a_result_may_name_only_what_lies_in_its_directory(finished: Path, store: ArtifactStore, path: str) -> None:
    (finished / "out" / "link").symlink_to("/etc")
    write_result(finished, {"answer/model": path})
    with pytest.raises(ResultRefused):
        import_result(finished, store)


def test_a_torn_result_is_refused_with_one_line(finished: Path, tmp_path: Path) -> None:
    (finished / "result.json").write_text('{"kind": "train"')
    done = run(finished, tmp_path / "store")
    assert (done.returncode, done.stderr.count("\n")) == (65, 1)
    assert not (finished / IMPORTED).exists()


def test_the_import_loads_neither_torch_nor_sql() -> None:
    code = "import sys, orchestrator.importing; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sqlalchemy", "transformers"} & {name.partition(".")[0] for name in names}


def test_clean_up_keeps_evidence_and_gives_the_rest_back(finished: Path) -> None:
    (finished / "job.log").write_text("done")
    cleanup.tidy([cleanup.Leftover(attempt=1, directory=finished, stored=True)])
    left = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    assert left == ["job.log", "out/rows.bits", "result.json"]
    assert not (finished / "checkpoints").exists()


def test_clean_up_never_leaves_the_directory(finished: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    write_result(finished, {"answer/model": "../precious"})
    cleanup.tidy([cleanup.Leftover(attempt=1, directory=finished, stored=True)])
    assert precious.is_dir()


def test_checkpoints_of_a_failed_job_wait_a_week_for_a_retry(toys: Toys) -> None:
    job = toys.reach(toys.supervisor(), toys.queue("crash", max_attempts=1), "failed")
    host = toys.attempts(job)[0].host
    with toys.app.database.read() as session:
        assert cleanup.leftovers(session, host=host, after=0, now=now()) == []
        (old,) = cleanup.leftovers(session, host=host, after=0, now=now() + timedelta(days=8))
    assert (old.directory, old.stored) == (toys.directory(job), False)


@pytest.mark.parametrize(
    ("text", "last"),
    [("one\ntwo\n\n", "two"), ("error: no rows\n", "no rows"), ("\x1b[31m", "[31m"), ("", ""), ("x" * 9999, "x" * 500)],
)
def test_the_last_printable_line_of_a_log_says_what_went_wrong(tmp_path: Path, text: str, last: str) -> None:
    (tmp_path / "job.log").write_text(text)
    assert logs.last_line(tmp_path) == last


def test_an_overlong_log_keeps_its_end_and_its_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(logs, "KEPT_BYTES", 1 << 18)
    log = tmp_path / "job.log"
    log.write_bytes(b"x" * (2 << 20) + b"the end\n")
    os.sync()
    assert logs.bound(tmp_path)
    assert log.stat().st_blocks * 512 <= 1 << 20
    assert log.read_bytes()[2 << 20 :] == b"the end\n"
    assert not logs.bound(tmp_path)


def order(spec: dict[str, Any], directory: Path, **more: Any) -> Order:
    given: dict[str, Any] = {"artifacts": {}, "earlier": (), **more}
    return Order(job=3, attempt=2, stream="s", name="n", spec=spec, threads=4, directory=directory, **given)


def spec(store: ArtifactStore, **model: str) -> dict[str, Any]:
    held = store.add_bytes(b"rows").hash
    source = {"name": "batch-1", "batch": 1, "path": f"object:{held}", "sha256": held, "role": "new"}
    work = {"kind": "measure", "sources": [source], "training": {}}
    return {"task": "sft", "seed": 1, "threads": 1, "model": {"path": "/base", **model}, "work": work}


def test_symbolic_paths_become_real_ones(store: ArtifactStore, finished: Path, tmp_path: Path) -> None:
    manifest = store.add_folder(finished / "out" / "model").hash
    symbols = spec(store, path=f"manifest:{manifest}", adapter="@fit/answer/adapter")
    siblings = {"fit": {"answer/adapter": manifest}}
    prepared = order(symbols, tmp_path / "new", artifacts=siblings, earlier=(finished, tmp_path / "empty"))
    prepare(prepared, store, tmp_path / "models")
    written = json.loads((tmp_path / "new" / "job.json").read_text())
    assert written["model"]["path"] == written["model"]["adapter"] == str(tmp_path / "models" / manifest)
    assert Path(written["work"]["sources"][0]["path"]).read_bytes() == b"rows"
    assert written["resume_from"] == [str(finished)]
    assert (written["job"], written["attempt"], written["threads"]) == (3, 2, 4)


def test_the_models_rows_and_eval_sets_of_a_merge_become_real_paths(
    store: ArtifactStore, finished: Path, tmp_path: Path
) -> None:
    manifest, rows = store.add_folder(finished / "out" / "model").hash, store.add_bytes(b"rows").hash
    file = {"name": "batch-1", "path": f"object:{rows}", "sha256": rows}
    parent = {
        "role": "v2",
        "model": {"path": f"manifest:{manifest}", "adapter": f"manifest:{manifest}"},
        "fisher": f"manifest:{manifest}",
        "rows": {**file, "batch": 1, "role": "old"},
    }
    work = {"kind": "merge", "method": {"kind": "fisher"}, "parents": [parent], "sets": [{"file": {**file, "id": 1}}]}
    resolved = resolve(order({**spec(store), "work": work}, tmp_path), store, tmp_path / "models").work
    assert isinstance(resolved, MergeWork)
    (merged,), (seen,) = resolved.parents, resolved.sets
    assert merged.rows is not None
    assert isinstance(seen, MergeSet)
    folder = str(tmp_path / "models" / manifest)
    assert (merged.model.path, merged.model.adapter, merged.fisher) == (folder, folder, folder)
    assert Path(merged.rows.path).read_bytes() == Path(seen.file.path).read_bytes() == b"rows"


def test_places_of_their_own_and_in_a_list_become_real_ones_and_references_of_a_template_stay(
    store: ArtifactStore, finished: Path, tmp_path: Path
) -> None:
    manifest = store.add_folder(finished / "out" / "model").hash
    siblings = {name: {"evidence/runs": manifest} for name in ("proxy-1", "proxy-2")}
    runs = [f"@{name}/evidence/runs" for name in siblings]
    template = {"init": "@live/answer", "runs": runs, "fit": {"prior": {}, "tokens": {}, "budget": 1}, "training": {}}
    fit = {"kind": "fit", "template": template, "runs": runs}
    measure = {"kind": "measure", "sources": [], "training": {}, "space": f"manifest:{manifest}"}
    regression, measured = (
        resolve(order({**spec(store), "work": work}, tmp_path, artifacts=siblings), store, tmp_path / "models").work
        for work in (fit, measure)
    )
    folder = str(tmp_path / "models" / manifest)
    assert isinstance(regression, FitWork)
    assert isinstance(measured, MeasureWork)
    assert (regression.runs, measured.space) == ((folder, folder), folder)
    assert regression.template.runs == tuple(runs)


@pytest.mark.parametrize(
    "path", ["manifest:", "relative/model", "@other/answer/model", "https://example.org/model", ""]
)
def test_any_other_path_is_refused(store: ArtifactStore, tmp_path: Path, path: str) -> None:
    with pytest.raises(UnresolvableSpec):
        resolve(order(spec(store, path=path), tmp_path), store, tmp_path / "models")


@pytest.mark.parametrize("change", [{"work": {}}, {"task": "dance"}, {"surprise": 1}])
def test_a_spec_that_is_no_job_is_refused_in_one_line(
    store: ArtifactStore, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(UnresolvableSpec, match="is not one a job can run") as caught:
        resolve(order({**spec(store), **change}, tmp_path), store, tmp_path / "models")
    assert "\n" not in str(caught.value)


def test_the_threads_of_a_job_are_those_granted(store: ArtifactStore, tmp_path: Path) -> None:
    assert submission.resolve(order(spec(store), tmp_path), store, tmp_path).threads == 4
