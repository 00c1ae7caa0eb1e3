"""Tracked files speak of the project alone: no machine's paths, no private hosts, no large files."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.architecture import tree

PERSONAL = re.compile(r"(?<![\w.~])/(?:home|Users|root)/[A-Za-z][\w.-]*")
PACKAGE_HOST = re.compile(
    r"(?:extra-)?index-url\s*=|--find-links|trusted-host|https?://[^\s/]*(?:pypi|devpi|artifactory|nexus)[^\s]*"
)
MAX_BYTES = 1_000_000
# This file and its neighbours spell the patterns out.
EXEMPT = "tests/architecture/"


def machine_paths(text: str) -> list[str]:
    """Paths that exist on somebody's machine only."""
    found = [match.group() for match in PERSONAL.finditer(text)]
    return found + ([str(tree.ROOT)] if re.search(rf"{re.escape(str(tree.ROOT))}\b", text) else [])


def test_no_tracked_file_names_a_machine_path() -> None:
    found = {name: machine_paths(text) for name, text in tree.texts() if not name.startswith(EXEMPT)}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_no_tracked_file_names_a_package_index() -> None:
    found = {name: PACKAGE_HOST.findall(text) for name, text in tree.texts() if not name.startswith(EXEMPT)}
    assert {name: hosts for name, hosts in found.items() if hosts} == {}


@pytest.mark.parametrize("text", ["see /home/anna/x", "open('/Users/anna')", f"cd {tree.ROOT} && make"])
def test_a_machine_path_is_found(text: str) -> None:
    assert machine_paths(text)


@pytest.mark.parametrize(
    "text", ["index-url = https://example.org", "pip --find-links wheels", "https://pypi.example.org/simple"]
)
def test_a_package_index_is_found(text: str) -> None:
    assert PACKAGE_HOST.findall(text)


def test_no_tracked_file_is_large() -> None:
    assert [tree.shown(path) for path in tree.tracked_files() if path.stat().st_size > MAX_BYTES] == []


def test_constraints_leave_the_build_of_torch_open() -> None:
    lines = [
        line for line in (tree.ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.13.0"]
    assert [
        line
        for line in lines
        if re.match(r"nvidia|triton|cuda|torchvision|rekindle|-e", line) or "+" in line or "/" in line
    ] == []


def test_continuous_integration_runs_make_test() -> None:
    script = tree.ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert re.search(r"^make test$", script.read_text(), re.MULTILINE)


def test_make_test_runs_everything_that_is_not_slow() -> None:
    planned = subprocess.run(["make", "-n", "test"], cwd=tree.ROOT, capture_output=True, text=True, check=True).stdout
    assert '-m "not slow"' in planned
    assert "OMP_NUM_THREADS=1" in planned
