"""What source text may not hold: pure functions from a syntax tree to the places that break a rule."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from storage import states
from tests.architecture.tree import shown

MAX_FUNCTION_LINES = 70
MAX_MODULE_LINES = 500
# Each of these runs what it reads, so data must never reach it.
BANNED_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"})
BANNED_CALLS = frozenset(
    {
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "torch.load",
        "torch.save",
        "numpy.load",
        "np.load",
    }
    | {
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "importlib.import_module",
        "pd.read_pickle",
        "jsonpickle.decode",
    }
)
STATES = "storage/states.py"
GROUPS = {
    frozenset(group): name
    for name, group in vars(states).items()
    if name in ("JOB_UNFINISHED", "JOB_GAVE_UP", "JOB_ENDED", "ATTEMPT_ENDED")
}
Place = str


def long_functions(path: Path, tree: ast.Module) -> Iterator[Place]:
    """Functions that are longer than a screen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{shown(path, node.lineno)} {node.name} has {lines} lines"


def long_module(path: Path, text: str) -> Iterator[Place]:
    """The module itself, if it is longer than one thing can be."""
    lines = text.count("\n")
    if lines > MAX_MODULE_LINES:
        yield f"{shown(path)} has {lines} lines"


def dangerous_code(path: Path, tree: ast.Module) -> Iterator[Place]:
    """Imports and calls that turn data into running code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in BANNED_MODULES & _imported(node):
                yield f"{shown(path, node.lineno)} imports {name}"
        elif isinstance(node, ast.Call):
            yield from (f"{shown(path, node.lineno)} {what}" for what in _dangers(node))


def spelled_groups(path: Path, tree: ast.Module) -> Iterator[Place]:
    """Collections of job states that :mod:`storage.states` has a name for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            name = GROUPS.get(frozenset(one.value for one in node.elts if isinstance(one, ast.Constant)))
            if name and shown(path) != STATES:
                yield f"{shown(path, node.lineno)} spells out {name}"


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").split(".")[0]}
    return {alias.name.split(".")[0] for alias in node.names}


def _dangers(call: ast.Call) -> Iterator[str]:
    name = _dotted(call.func)
    if name in BANNED_CALLS:
        yield f"calls {name}"
    for keyword in call.keywords:
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            yield f"calls {name} with a shell"
        if keyword.arg == "allow_pickle" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
            yield f"calls {name} with pickle allowed"


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
