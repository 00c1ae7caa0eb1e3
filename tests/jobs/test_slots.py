"""Slots: never oversubscribed, highest priority first, nobody starved."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs import gpus
from orchestrator.jobs.executors.contract import Grant
from orchestrator.jobs.slots import Capacity, Request, grants, impossible

REQUESTS = st.lists(
    st.builds(
        Request, job=st.integers(1, 99), cpus=st.integers(1, 9), gpus=st.integers(0, 5), priority=st.integers(-2, 2)
    ),
    max_size=12,
    unique_by=lambda one: one.job,
)


@given(requests=REQUESTS, cpus=st.integers(1, 8), count=st.integers(0, 4), data=st.data())
def test_slots_are_never_given_twice(requests: list[Request], cpus: int, count: int, data: st.DataObject) -> None:
    all_gpus = tuple(range(count))
    idle = frozenset(data.draw(st.sets(st.sampled_from(all_gpus)))) if all_gpus else frozenset()
    capacity = Capacity(cpus=cpus, gpus=all_gpus, idle_gpus=idle)
    running: list[Grant] = []
    for _ in range(3):
        new = grants(requests, running, capacity)
        requests = [one for one in requests if one.job not in new]
        running += new.values()
        taken = [gpu for grant in running for gpu in grant.gpus]
        assert sum(grant.cpus for grant in running) <= cpus
        assert len(taken) == len(set(taken))
        assert set(taken) <= idle


@given(requests=REQUESTS, cpus=st.integers(1, 8))
def test_on_an_idle_machine_the_first_in_line_always_starts(requests: list[Request], cpus: int) -> None:
    possible = [one for one in requests if one.gpus == 0]
    if possible:
        first = min(possible, key=lambda one: (-one.priority, one.job))
        assert first.job in grants(possible, [], Capacity(cpus=cpus))


def test_a_small_job_does_not_overtake_a_large_one_for_the_same_slots() -> None:
    waiting = [Request(job=1, cpus=4, gpus=0), Request(job=2, cpus=1, gpus=0)]
    assert grants(waiting, [Grant(cpus=1)], Capacity(cpus=4)) == {}


def test_a_job_that_waits_for_a_gpu_does_not_hold_up_cpu_jobs() -> None:
    waiting = [Request(job=1, cpus=1, gpus=1), Request(job=2, cpus=1, gpus=0)]
    capacity = Capacity(cpus=2, gpus=(0,), idle_gpus=frozenset())
    assert grants(waiting, [], capacity) == {2: Grant(cpus=1)}


def test_priority_comes_before_age_and_any_free_gpus_will_do() -> None:
    waiting = [Request(job=1, cpus=1, gpus=2), Request(job=2, cpus=1, gpus=2, priority=1)]
    capacity = Capacity(cpus=4, gpus=(0, 1, 2, 3), idle_gpus=frozenset({1, 3}))
    assert grants(waiting, [], capacity) == {2: Grant(cpus=1, gpus=(1, 3))}


def test_more_cores_than_there_are_means_all_of_them_but_more_gpus_is_impossible() -> None:
    capacity = Capacity(cpus=2, gpus=(0,), idle_gpus=frozenset({0}))
    assert grants([Request(job=1, cpus=64, gpus=0)], [], capacity) == {1: Grant(cpus=2)}
    assert "asks for 2 GPUs where jobs may use 1" in impossible(Request(job=1, cpus=1, gpus=2), capacity)
    assert grants([Request(job=1, cpus=1, gpus=2)], [], capacity) == {}


def tool(folder: Path, text: str) -> str:
    """A stand-in for nvidia-smi that prints ``text``."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!{sys.executable}\nprint({text!r})\n")
    path.chmod(0o755)
    return str(path)


def test_a_gpu_whose_memory_is_in_use_is_not_idle(tmp_path: Path) -> None:
    said = "0, 80000, 81559\n1, 1000, 81559\n2, [N/A], [N/A]"
    assert gpus.look(tool(tmp_path, said)) == {0}


def test_the_probe_answers_later_and_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "0, 100, 100\n1, 5, 100\n7, 100, 100")
    monkeypatch.setenv("PATH", str(tmp_path))
    clock = [0.0]
    with ThreadPoolExecutor(1) as workers:
        probe = gpus.GpuProbe((0, 1), workers, lambda: clock[0])
        assert probe.idle() == frozenset()
        workers.submit(lambda: None).result()
        assert probe.idle() == {0}
        clock[0] = gpus.FRESH_S
        assert probe.idle() == frozenset()


def test_without_nvidia_smi_all_gpus_count_as_idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with ThreadPoolExecutor(1) as workers:
        assert gpus.GpuProbe((0, 1), workers, lambda: 0.0).idle() == {0, 1}
