"""Every command, setting, strategy and link is in the docs, and stays there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli import app
from strategies.chooser import choice
from tests.architecture import settings_page, tree

README = tree.ROOT / "README.md"
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
PLACE = re.compile(r"`((?:orchestrator|strategies|storage|tests|deploy|docs)/[\w/.-]*)`")
PAGES = sorted(path for path in tree.tracked_files() if path.suffix == ".md")


def commands(group: Any, path: str = "") -> Iterator[str]:
    """Every command that can be typed, without the program's name."""
    if not hasattr(group, "commands"):
        yield path
        return
    for name, found in group.commands.items():
        if not found.hidden:
            yield from commands(found, f"{path} {name}".strip())


def broken_links(page: Path, text: str) -> list[str]:
    """Links to files or headings that are not there."""
    return [target for target in LINK.findall(text) if not _resolves(page, target)]


def _resolves(page: Path, target: str) -> bool:
    if target.startswith(("https://", "http://", "mailto:")):
        return True
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(tree.ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("target", ["nowhere.md", "README.md#no-such-heading"])
def test_a_broken_link_is_found(target: str) -> None:
    assert broken_links(README, f"see [there]({target})") == [target]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "deploy/README.md"])
def test_every_file_that_a_page_names_is_there(name: str) -> None:
    named = PLACE.findall((tree.ROOT / name).read_text(encoding="utf-8"))
    assert sorted(one for one in named if not (tree.ROOT / one).exists()) == []


def test_every_command_is_in_the_readme() -> None:
    listed = list(commands(typer.main.get_command(app)))
    text = README.read_text(encoding="utf-8")
    assert len(listed) > 30
    assert [name for name in listed if f"rekindle {name}" not in text] == []


def test_the_settings_page_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page()


def test_every_setting_is_on_the_settings_page() -> None:
    text = settings_page.PAGE.read_text(encoding="utf-8")
    wanted = settings_page.keys()
    assert len(wanted) > 80
    assert [key for key in wanted if f"`{key}`" not in text] == []


def test_every_setting_is_described() -> None:
    rows = [line for line in settings_page.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if not row.rsplit(" | ", 1)[1].strip(" |")] == []


def test_a_record_is_on_the_settings_page_once() -> None:
    bodies = [body.replace(f"`{title}.", "`") for title, body in _sections(settings_page.page())]
    assert len(bodies) > 30
    assert [body for number, body in enumerate(bodies) if body in bodies[:number]] == []


def _sections(page: str) -> list[tuple[str, str]]:
    """Title and text of each section that has a setting's path for its title."""
    return re.findall(r"^## `([^`]+)`\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", choice.NAMES)
def test_every_strategy_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README.read_text(encoding="utf-8")


def test_the_readme_opens_with_a_run_in_thirty_lines() -> None:
    assert "make demo" in "\n".join(README.read_text(encoding="utf-8").splitlines()[:30])


def test_every_folder_of_the_file_tree_exists() -> None:
    named_paths = re.findall(r"^(?:[│├└─ ]*)([\w.-]+/)", _file_tree(), re.MULTILINE)
    assert len(named_paths) > 10
    known = {part for path in tree.tracked_files() for part in path.relative_to(tree.ROOT).parts[:-1]}
    assert [name for name in named_paths if name.rstrip("/") not in known] == []


def _file_tree() -> str:
    found = re.search(r"## What lies where\n+```\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found.group(1)
