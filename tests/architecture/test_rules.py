"""The house rules hold in every module, and each rule can be broken."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture import rules, tree

HERE = Path("example.py")


def test_no_function_is_longer_than_seventy_lines() -> None:
    assert [place for path in tree.written() for place in rules.long_functions(path, tree.syntax(path))] == []


def test_no_module_is_longer_than_five_hundred_lines() -> None:
    tests = [path for path in tree.tracked_files() if path.suffix == ".py" and path.is_relative_to(tree.ROOT / "tests")]
    modules = [*tree.written(), *tests]
    assert [place for path in modules for place in rules.long_module(path, path.read_text(encoding="utf-8"))] == []


def test_no_module_turns_data_into_running_code() -> None:
    assert [place for path in tree.sources() for place in rules.dangerous_code(path, tree.syntax(path))] == []


def test_groups_of_job_states_go_by_their_names() -> None:
    assert [place for path in tree.written() for place in rules.spelled_groups(path, tree.syntax(path))] == []


def test_every_module_says_what_it_is() -> None:
    assert [
        tree.shown(path) for path in tree.sources() if path.stat().st_size and not ast.get_docstring(tree.syntax(path))
    ] == []


def test_the_sources_are_really_looked_at() -> None:
    assert len(tree.sources()) > 5
    assert tree.ROOT / "pyproject.toml" in tree.tracked_files()


def test_a_function_of_seventy_one_lines_is_found() -> None:
    text = "def long():\n" + "    pass\n" * rules.MAX_FUNCTION_LINES
    assert list(rules.long_functions(HERE, ast.parse(text))) == ["example.py:1 long has 71 lines"]


def test_a_module_of_five_hundred_and_one_lines_is_found() -> None:
    assert list(rules.long_module(HERE, "\n" * 501)) == ["example.py has 501 lines"]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "eval('1')",
        "exec(text)",
        "yaml.load(text)",
        "importlib.import_module(name)",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=wanted)",
        "numpy.fromfile(path, allow_pickle=True)",
        "os.system('ls')",
    ],
)
def test_dangerous_code_is_found(line: str) -> None:
    assert len(list(rules.dangerous_code(HERE, ast.parse(line)))) == 1


def test_a_spelled_group_of_job_states_is_found() -> None:
    text = "if state in ('cancelled', 'failed'):\n    pass\n"
    assert list(rules.spelled_groups(HERE, ast.parse(text))) == ["example.py:1 spells out JOB_GAVE_UP"]


@pytest.mark.parametrize(
    "line", ["yaml.safe_load(text)", "model.eval()", "subprocess.run(['ls'], shell=False)", "re.compile('x')"]
)
def test_harmless_code_is_left_alone(line: str) -> None:
    assert list(rules.dangerous_code(HERE, ast.parse(line))) == []
