"""What every executor must do, on the local one; to add an executor, give the fixture another."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.jobs import environment, identity
from orchestrator.jobs.executors import launch
from orchestrator.jobs.executors.contract import Grant, Handle
from orchestrator.jobs.executors.local import LocalExecutor
from tests.jobs.conftest import TOY, is_alive

GRANT = Grant(cpus=2, gpus=(3, 5))


@pytest.fixture
def executor() -> LocalExecutor:
    return LocalExecutor(TOY)


@pytest.fixture
def directory(tmp_path: Path, executor: LocalExecutor) -> Iterator[Path]:
    folder = tmp_path / "it's a job\n"
    yield folder
    handle = executor.find(folder)
    if handle is not None:
        executor.kill(handle)
        ended(executor, folder, handle)


def begin(executor: LocalExecutor, directory: Path, name: str) -> Handle:
    directory.mkdir(exist_ok=True)
    (directory / "job.json").write_text(json.dumps({"name": name, "threads": 2, "model": {"path": "/"}}))
    return executor.start(directory, arguments=[str(directory)], grant=GRANT)


def ended(executor: LocalExecutor, directory: Path, handle: Handle) -> int | None:
    end = time.monotonic() + 20
    while (seen := executor.observe(directory, handle)).process == "alive":
        assert time.monotonic() < end
        time.sleep(0.01)
    return seen.exit_code


def until_beating(directory: Path) -> None:
    end = time.monotonic() + 20
    while not (directory / "heartbeat.json").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_exit_code_is_seen_once_and_kept(executor: LocalExecutor, directory: Path) -> None:
    handle = begin(executor, directory, "refuse")
    assert ended(executor, directory, handle) == 65
    assert LocalExecutor(TOY).observe(directory, handle).exit_code == 65


def test_the_process_tells_who_it_is(executor: LocalExecutor, directory: Path) -> None:
    handle = begin(executor, directory, "hold")
    until_beating(directory)
    assert executor.find(directory) == handle
    assert executor.observe(directory, handle).process == "alive"
    assert 0 <= executor.observe(directory, handle).running_s < 60


def test_a_job_has_a_session_of_its_own_and_dies_first_when_memory_is_short(
    executor: LocalExecutor, directory: Path
) -> None:
    handle = begin(executor, directory, "hold")
    until_beating(directory)
    assert os.getsid(handle.pid) == handle.pid
    assert Path(f"/proc/{handle.pid}/oom_score_adj").read_text().strip() == launch.OOM_SCORE_ADJ
    status = Path(f"/proc/{handle.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    arguments = Path(f"/proc/{handle.pid}/cmdline").read_bytes().split(b"\0")
    assert arguments[1:4] == [b"-P", b"-m", TOY.encode()]


def test_terminate_and_kill_end_a_process_and_say_when_it_is_gone(executor: LocalExecutor, directory: Path) -> None:
    handle = begin(executor, directory, "wait-for-sigterm")
    until_beating(directory)
    assert executor.terminate(handle)
    assert ended(executor, directory, handle) == -15
    assert not executor.terminate(handle)
    assert not executor.kill(handle)


def test_in_one_directory_only_one_process_ever_starts(executor: LocalExecutor, directory: Path) -> None:
    directory.mkdir()
    (directory / "job.json").write_text(json.dumps({"name": "hold"}))
    handles: list[Handle] = []
    start = lambda: handles.append(executor.start(directory, arguments=[str(directory)], grant=GRANT))  # noqa: E731
    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until_beating(directory)
    found = executor.find(directory)
    assert found in handles
    others = [handle for handle in handles if handle != found]
    codes = [os.waitstatus_to_exitcode(os.waitpid(handle.pid, 0)[1]) for handle in others]
    assert codes == [launch.EXIT_NOT_STARTED] * 3
    assert found is not None
    assert is_alive(found.pid)


def test_a_voided_directory_never_starts_a_process(executor: LocalExecutor, directory: Path) -> None:
    assert executor.void(directory)
    assert ended(executor, directory, begin(executor, directory, "hold")) == launch.EXIT_NOT_STARTED
    assert executor.find(directory) is None


def test_a_directory_with_a_process_cannot_be_voided(executor: LocalExecutor, directory: Path) -> None:
    handle = begin(executor, directory, "hold")
    until_beating(directory)
    assert not executor.void(directory)
    executor.kill(handle)
    ended(executor, directory, handle)
    assert not executor.void(directory)


def test_a_process_that_is_not_meant_is_gone_and_never_signalled(executor: LocalExecutor, directory: Path) -> None:
    me = identity.handle_of(os.getpid())
    assert me is not None
    for other in (replace(me, started=me.started + 1), replace(me, boot_id="another"), replace(me, pid=2**22 + 1)):
        assert executor.observe(directory, other).process == "gone"
        assert not executor.kill(other)


def seen_by_the_child(executor: LocalExecutor, directory: Path) -> Any:
    assert ended(executor, directory, begin(executor, directory, "environment")) == 0
    return json.loads((directory / "out" / "model" / "config.json").read_text())


def test_no_secret_reaches_the_job(executor: LocalExecutor, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-51f0"
    for name in ("REKINDLE_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "PGPASSWORD", "HTTPS_PROXY"):
        monkeypatch.setenv(name, canary)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    child = seen_by_the_child(executor, directory)
    assert canary not in json.dumps(child)
    assert child["variables"]["HF_HUB_OFFLINE"] == "1"


def test_the_job_is_told_its_cores_and_gpus_and_works_in_its_directory(
    executor: LocalExecutor, directory: Path
) -> None:
    child = seen_by_the_child(executor, directory)
    wanted = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": "3,5"}
    assert {name: child["variables"][name] for name in wanted} == wanted
    assert child["variables"]["TOKENIZERS_PARALLELISM"] == "false"
    assert child["cwd"] == str(directory)
    assert str(directory) not in child["path"]
    assert "" not in child["path"]


def test_a_cpu_job_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert environment.environment(os.environ, grant=Grant(cpus=1), modules=())["CUDA_VISIBLE_DEVICES"] == ""


def test_the_source_folder_is_passed_only_where_the_module_is_not_installed() -> None:
    root = str(Path(__file__).resolve().parents[2])
    assert environment.missing_roots((TOY,)) == (root,)
    assert environment.missing_roots(("json.tool",)) == ()


def test_the_log_holds_what_the_job_said(executor: LocalExecutor, directory: Path) -> None:
    ended(executor, directory, begin(executor, directory, "refuse"))
    assert (directory / "job.log").read_text() == "row 3 has no text\n"


def test_the_launcher_loads_nothing_heavy() -> None:
    import subprocess

    code = "import sys, orchestrator.jobs.executors.launch, orchestrator.jobs.identity; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sqlalchemy", "pydantic", "numpy"} & {name.partition(".")[0] for name in names}
