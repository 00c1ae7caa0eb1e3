"""Text that every Python installation carries, cut into documents: nothing is downloaded.

``english``  the language reference, as ``help()`` shows it (``pydoc_data.topics``)
``docs``     docstrings of the standard library: also English, another voice (a weak shift)
``code``     source of the standard library without docstrings and comments (a strong shift)
``letters``  names of the characters of Unicode, by script (a strong shift)
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data import topics

PIECE_CHARS = 800
"""Documents are about this long: short enough that a small batch still holds many."""
MIN_CHARS = 200


def english() -> Iterator[str]:
    """Topics of the language reference."""
    for name in sorted(topics.topics):
        yield from pieces(topics.topics[name])


def docs() -> Iterator[str]:
    """Docstrings of standard-library modules."""
    for path in _library():
        found = [ast.get_docstring(node) for node in ast.walk(_parsed(path)) if isinstance(node, _DOCUMENTED)]
        yield from pieces("\n\n".join(text for text in found if text))


def code() -> Iterator[str]:
    """Bare source of standard-library modules; unparsing drops the comments."""
    for path in _library():
        tree = _parsed(path)
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False):
                node.body = node.body[1:] or [ast.Pass()]
        yield from pieces(ast.unparse(tree).replace("\n\n", "\n"))


def letters() -> Iterator[str]:
    """Names of characters below U+20000, a document for a run of neighbours."""
    names = (f"{ordinal:04X} {unicodedata.name(chr(ordinal), '')}" for ordinal in range(0x20000))
    yield from pieces("\n".join(name for name in names if len(name) > len("0000 ")))


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
DOMAINS: dict[str, Callable[[], Iterator[str]]] = {"english": english, "docs": docs, "code": code, "letters": letters}


def pieces(text: str, size: int = PIECE_CHARS) -> Iterator[str]:
    """Cut at line ends into documents of about ``size`` characters, without a short rest and lines beyond ``size``.

    Unparsing puts a whole table on one line: such a document would outweigh all others in an eval set.
    """
    piece: list[str] = []
    length = 0
    for line in text.splitlines():
        if len(line) > size:
            continue
        piece.append(line)
        length += len(line) + 1
        if length >= size:
            yield "\n".join(piece)
            piece, length = [], 0
    if length >= MIN_CHARS:
        yield "\n".join(piece)


def write(domain: str, path: Path, *, chars: int) -> int:
    """Write about ``chars`` characters of a domain as JSONL, evenly drawn by digest; the number of documents.

    Raises:
        ValueError: this Python installation carries too little of the text.
    """
    by_digest = {hashlib.sha256(text.encode()).hexdigest(): text for text in DOMAINS[domain]()}
    written = 0
    with path.open("w", encoding="utf-8") as out:
        for count, digest in enumerate(sorted(by_digest), start=1):
            text = by_digest[digest]
            out.write(json.dumps({"id": f"{domain}-{digest[:12]}", "text": text}, ensure_ascii=False) + "\n")
            written += len(text)
            if written >= chars:
                return count
    if written < chars // 2:
        raise ValueError(
            f"this Python carries only {written} characters of {domain}; install its standard library whole"
        )
    return len(by_digest)


def _library() -> list[Path]:
    """Modules and packages of the standard library, without its tests and what pip put beside it."""
    root = Path(sysconfig.get_path("stdlib"))
    folders = (
        "",
        "asyncio",
        "collections",
        "concurrent/futures",
        "email",
        "html",
        "http",
        "importlib",
        "json",
        "logging",
    )
    more = ("multiprocessing", "unittest", "urllib", "wsgiref", "xml/dom", "xml/etree", "xmlrpc", "zoneinfo")
    return sorted(path for folder in (*folders, *more) for path in (root / folder).glob("*.py"))


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8", errors="replace"))
