"""What is imported is declared, what is declared is imported, and versions are pinned for it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from tests.architecture import tree

UNSEEN = {
    "python-multipart": "fastapi reads uploads with it",
    "tzdata": "zoneinfo's data, where the system has none",
}
"""Needed without being imported."""
HUB = "huggingface-hub"
"""Asked for a model by its hub id, and with one line to install it where it is not there."""


def imported(package: str) -> set[str]:
    """The distributions that a package's modules import, at any depth."""
    modules = [path for path in tree.sources() if path.relative_to(tree.ROOT).parts[0] == package]
    names = {name.partition(".")[0] for path in modules for node in ast.walk(tree.syntax(path)) for name in named(node)}
    foreign = names - set(tree.PACKAGES) - sys.stdlib_module_names
    return {canonical(distribution) for name in foreign for distribution in distributions()[name]}


def named(node: ast.AST) -> list[str]:
    """The modules that a statement imports by their full names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


@cache
def distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def declared(extra: str | None = None) -> set[str]:
    """The distributions of an extra, or those that are always there."""
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return {canonical(re.split(r"[\[<>=!~; ]", line)[0]) for line in listed}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("package", ["orchestrator", "storage"])
def test_what_the_daemon_imports_is_always_there(package: str) -> None:
    assert imported(package) - declared() - {HUB} == set()


def test_what_a_job_imports_comes_with_training() -> None:
    assert imported("strategies") - declared() - declared("train") == set()


def test_nothing_is_declared_that_nobody_needs() -> None:
    needed = set().union(*(imported(package) for package in tree.PACKAGES)) | set(UNSEEN)
    assert (declared() | declared("train")) - needed == set()


@pytest.mark.parametrize("extra", [None, "train", "postgres", "test"])
def test_what_is_declared_has_the_version_it_was_tested_with(extra: str | None) -> None:
    lines = (tree.ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line.partition("==")[0]) for line in lines if "==" in line}
    assert declared(extra) - pinned == set()
