"""Imports run one way, and nothing that the daemon reaches brings torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import tree

HEAVY = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "sklearn")
DAEMON = ("orchestrator.daemon", "orchestrator.rest", "orchestrator.cli", "orchestrator.demo", "orchestrator.importing")
# What the command line's start cannot afford (each is 0.1 to 2 s).
SLOW = ("sqlalchemy", "fastapi", "pydantic_settings", "structlog", "numpy", "pyarrow", "alembic", *HEAVY)


def loaded_after(modules: tuple[str, ...], watched: tuple[str, ...]) -> list[str]:
    """Which of the watched modules a fresh interpreter holds once it has imported the others."""
    script = f"import sys, {', '.join(modules)}; print(*sorted(set({watched!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tree.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=tree.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_folder_of_modules_is_a_package() -> None:
    """The import contracts see nothing else."""
    folders = {path.parent for path in tree.sources()}
    assert [tree.shown(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("module", DAEMON)
def test_the_daemon_and_its_faces_never_load_torch(module: str) -> None:
    assert loaded_after((module,), HEAVY) == []


def test_the_command_line_starts_without_slow_libraries() -> None:
    assert loaded_after(("orchestrator.cli",), SLOW) == []


def test_a_loaded_library_is_noticed() -> None:
    assert loaded_after(("yaml", "json"), ("yaml", "torch")) == ["yaml"]


@pytest.mark.parametrize("package", ["orchestrator", "storage"])
def test_no_heavy_import_hides_inside_a_function(package: str) -> None:
    """A lazy import escapes the run-time check, and would break a daemon that has been up for days."""
    modules = [path for path in tree.sources() if path.relative_to(tree.ROOT).parts[0] == package]
    assert [place for path in modules for place in heavy_imports(path)] == []


def heavy_imports(path: Path) -> list[str]:
    """Places that import a heavy library, at any depth."""
    found = []
    for node in ast.walk(tree.syntax(path)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found += [f"{tree.shown(path, node.lineno)} {name}" for name in names if name.split(".")[0] in HEAVY]
    return found


def test_a_heavy_import_inside_a_function_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def late():\n    from torch import nn\n    return nn\n")
    assert len(heavy_imports(module)) == 1
