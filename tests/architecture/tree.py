"""The project's files and their syntax trees, as the architecture tests look at them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "strategies", "storage")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that git tracks, or, outside a checkout, every file that is neither hidden nor built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _is_built(path.relative_to(ROOT))]
    return tuple(path for path in paths if path.is_file())


def _is_built(path: Path) -> bool:
    return any(
        (part.startswith(".") and part != ".ci")
        or part.endswith(".egg-info")
        or part in {"__pycache__", "build", "dist"}
        for part in path.parts
    )


@cache
def sources() -> tuple[Path, ...]:
    """Every Python module of the three packages."""
    return tuple(sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")))


@cache
def written() -> tuple[Path, ...]:
    """The modules that people shape: all but migrations, which are frozen once they are released."""
    return tuple(path for path in sources() if "versions" not in path.relative_to(ROOT).parts)


@cache
def syntax(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every tracked text file."""
    for path in tracked_files():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def shown(path: Path, line: int | None = None) -> str:
    """A place in the tree as an editor understands it."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return name if line is None else f"{name}:{line}"
