"""Every METHODS reference leads to a section of docs/METHODS.md, and every file that the page names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.architecture import tree

PAGE = tree.ROOT / "docs" / "METHODS.md"
PLACES = ("strategies/", "orchestrator/", "storage/", "tests/", "docs/")
NUMBER = r"\d+(?:\.\d+)*(?: [a-z]\b)?"
# A reference may go on in the next line of a docstring, and may list several sections.
REFERENCE = re.compile(rf"METHODS\s+({NUMBER}(?:(?:,| and)\s+{NUMBER})*)")
OTHER_FORM = re.compile(r"METHODS(?:\.md)?\s+(?:sections?\s+)?\d")


def sections(text: str) -> set[str]:
    """Numbers of all headings, and of the points below them: 2.5, 2.5.3, ``1.2 a``."""
    found: set[str] = set()
    inside = ""
    for line in text.splitlines():
        if heading := re.match(rf"#+ ({NUMBER})", line):
            inside = heading.group(1)
            found.add(inside)
        elif point := re.match(r"(\d+)\. ", line):
            found.add(f"{inside}.{point.group(1)}")
    return found


def cited(text: str) -> Iterator[str]:
    """Numbers of the sections that a text refers to."""
    for found in REFERENCE.finditer(text):
        yield from re.findall(NUMBER, found.group(1))


def other_forms(text: str) -> list[str]:
    """References that are not written as the page says."""
    return [found.group() for found in OTHER_FORM.finditer(text) if not REFERENCE.match(found.group())]


def texts() -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in tree.texts() if name.startswith(PLACES) and name.endswith((".py", ".md")))


def test_every_reference_leads_to_a_section() -> None:
    known = sections(PAGE.read_text(encoding="utf-8"))
    used = {(name, number) for name, text in texts() for number in cited(text)}
    assert len(used) > 80
    assert sorted((name, number) for name, number in used if number not in known) == []


def test_references_are_written_in_one_form() -> None:
    assert {name: forms for name, text in texts() if (forms := other_forms(text))} == {}


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:strategies|tests)/[\w/.-]+)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 40
    assert sorted(name for name in named if not (tree.ROOT / name).exists()) == []


def test_headings_letters_and_points_are_sections() -> None:
    page = "# Methods\n## 2 Half\n### 2.5 Subtleties\n1. one\n2. two\n#### 2.5 a Letters\n"
    assert sections(page) == {"2", "2.5", "2.5.1", "2.5.2", "2.5 a"}


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("({} 3.2, 3.4, 3.6)", ["3.2", "3.4", "3.6"]),
        ("{}\n    7.1 says", ["7.1"]),
        ("({} 1.2 a). Then", ["1.2 a"]),
        ("({} 4.1: an aside)", ["4.1"]),
        ("({} 3.7, router alignment)", ["3.7"]),
        ("{} = (1, 2)", []),
    ],
)
def test_a_reference_is_found(written: str, numbers: list[str]) -> None:
    assert list(cited(written.format("METHODS"))) == numbers


@pytest.mark.parametrize("written", ["{}.md section 4.1", "{}.md 4.1", "{} section 9", "{}.md sections 1.4 and 4"])
def test_another_form_is_found(written: str) -> None:
    assert other_forms(written.format("METHODS"))
