"""Documents told apart into the classes that a domain space has: by a column, or by clusters (METHODS 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from strategies.contract.domains import CLASS_COLUMN, by_column, part
from strategies.errors import Refused
from strategies.inference.encoding import messages_of
from strategies.settings import Task
from strategies.training.data import Documents

Classes = Callable[[Documents], list[str]]
"""The class of each document."""


def classes_by(how: Literal["column", "clusters"] | None, space: str | None, task: Task) -> Classes | None:
    """What tells documents apart; None where they are not."""
    if how is None:
        return None
    if how == "column":
        return _in_column
    if space is None:
        raise Refused("the mixing's domains are clusters, but no space is given; ask for the retrain again")
    from strategies.fitting.domains import Domains

    found = Domains.load(Path(space))
    return lambda documents: found.assign(texts_of(documents, task))


class Divisible(Protocol):
    """Documents, as they are or as tokens."""

    def where(self, chosen: NDArray[np.bool_]) -> Self: ...


Some = TypeVar("Some", bound=Divisible)


def divide(documents: Some, domains: Sequence[str]) -> dict[str, Some]:
    """The documents of each domain, in their order, given the domain of each document."""
    assigned = np.array(domains)
    return {name: documents.where(assigned == name) for name in sorted(set(domains))}


def parts(name: str, documents: Documents, classes: Classes | None) -> dict[str, Documents]:
    """A batch's documents under its own name, or those of each class under the name of that part."""
    if classes is None:
        return {name: documents}
    return {part(name, one): found for one, found in divide(documents, classes(documents)).items()}


def texts_of(documents: Documents, task: Task) -> list[str]:
    """What a document says: its text, or the contents of its messages."""
    if task != "sft":
        return list(map(str, documents.column("text")))
    dialogues = messages_of(documents.column("messages"))
    return ["\n".join(message["content"] for message in dialogue) for dialogue in dialogues]


def _in_column(documents: Documents) -> list[str]:
    has_it = CLASS_COLUMN in documents.table.column_names
    return by_column(documents.column(CLASS_COLUMN) if has_it else [None] * len(documents))
