"""From a row's columns to a task's canonical fields and the digests that identify a document.

Canonical: NFC, edge white space stripped. The digest is sha256 over the canonical JSON of the task's fields; the
content digest leaves the label out and takes any run of white space as one blank, so that it says "the same text".
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from orchestrator.ingest.records import Refused, escape
from orchestrator.ingest.strict_json import JsonProblem, dump, parse
from orchestrator.settings import SourceSettings
from strategies.settings import Task

MAX_ID_CHARACTERS = 512
MAX_LABEL_CHARACTERS = 256
MAX_COMBINING_RUN = 1000
ROLES = ("system", "user", "assistant")

_COLUMNS: dict[Task, tuple[str, ...]] = {
    "causal-lm": ("text",),
    "sft": ("messages", "prompt", "completion", "instruction", "input", "output"),
    "classification": ("text", "label"),
}
_NOT_LATIN_RUN = re.compile(rf"[^\x00-\u02ff]{{{MAX_COMBINING_RUN},}}")


class Unusable(ValueError):  # noqa: N818 - says what the row is
    """A readable row that is no document of the task; ``missing`` names a column that is not there at all."""

    def __init__(self, reason: str, detail: str = "", missing: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.missing = missing


class Normal(NamedTuple):
    """A document in canonical form; ``text`` is what near-duplicates are found by."""

    fields: dict[str, str]
    digest: str
    content_digest: str
    text: str
    external_id: str | None
    label: str | None
    group: str | None
    domain: str | None = None


class Normaliser:
    """Makes documents of one task out of rows, with the stream's column names."""

    def __init__(self, task: Task, source: SourceSettings, group_by: str | None = None, max_nesting: int = 64) -> None:
        unknown = sorted(set(source.text_fields) - set(_COLUMNS[task]))
        if unknown:
            raise Unusable(f"source.text_fields names {unknown[0]!r}; task {task} has {', '.join(_COLUMNS[task])}")
        self.task = task
        self.mapping = {name: source.text_fields.get(name, name) for name in _COLUMNS[task]}
        self._id_field = source.id_field
        self._domain_field = source.domain_field
        self._group_by = group_by
        self._max_nesting = max_nesting
        optional = {name for name in (source.id_field, source.domain_field, group_by) if name}
        self.columns = frozenset(self.mapping.values()) | optional
        self.task_columns = frozenset(self.mapping.values())

    def check(self, columns: Collection[str]) -> None:
        """Refuse a file that has none of the task's columns.

        Raises:
            Refused: it says which columns there are, and how to name the right one.
        """
        if self.task_columns.isdisjoint(columns):
            field, column = next(iter(self.mapping.items()))
            raise Refused(no_column(field, column, columns))

    def __call__(self, row: Mapping[str, Any]) -> Normal:
        """The document in ``row``.

        Raises:
            Unusable: a field is missing, blank, of another type, or not encodable.
        """
        fields, digested, content, label = self._fields(row)
        try:
            return Normal(
                fields=fields,
                digest=_sha256(dump(digested)),
                content_digest=_sha256(" ".join(content.split())),
                text=content,
                external_id=self._external_id(row),
                label=label,
                group=self._group(row),
                domain=self._domain(row),
            )
        except UnicodeEncodeError:
            raise Unusable("not valid Unicode", "a lone surrogate") from None

    def _fields(self, row: Mapping[str, Any]) -> tuple[dict[str, str], Mapping[str, Any], str, str | None]:
        """Stored fields, digested fields, content, label."""
        if self.task == "sft":
            messages = self._messages(row)
            content = "\n".join(message["content"] for message in messages)
            return {"messages": dump(messages)}, {"messages": messages}, content, None
        text = self._text(row, "text")
        label = self._label(row) if self.task == "classification" else None
        fields = {"text": text} if label is None else {"text": text, "label": label}
        return fields, fields, text, label

    def _value(self, row: Mapping[str, Any], name: str) -> Any:
        column = self.mapping[name]
        if column not in row:
            raise Unusable(f"no column {escape(column, 50)!r}", missing=column)
        return row[column]

    def _text(self, row: Mapping[str, Any], name: str) -> str:
        return canonical(self._value(row, name), self.mapping[name])

    def _label(self, row: Mapping[str, Any]) -> str:
        value, column = self._value(row, "label"), self.mapping["label"]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        label = canonical(str(value) if isinstance(value, int) else value, column)
        if len(label) > MAX_LABEL_CHARACTERS:
            raise Unusable("label too long", f"more than {MAX_LABEL_CHARACTERS} characters")
        return label

    def _messages(self, row: Mapping[str, Any]) -> list[dict[str, str]]:
        if row.get(self.mapping["messages"]) is not None:
            return _conversation(row[self.mapping["messages"]], self._max_nesting)
        if row.get(self.mapping["prompt"]) is not None:
            return _turn(self._text(row, "prompt"), self._text(row, "completion"))
        if row.get(self.mapping["instruction"]) is not None:
            return _turn(self._instruction(row), self._text(row, "output"))
        raise Unusable("no messages, prompt or instruction", missing=self.mapping["messages"])

    def _instruction(self, row: Mapping[str, Any]) -> str:
        instruction, extra = self._text(row, "instruction"), row.get(self.mapping["input"])
        if extra is None or (isinstance(extra, str) and not extra.strip()):
            return instruction
        return instruction + "\n\n" + canonical(extra, self.mapping["input"])

    def _external_id(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self._id_field) if self._id_field else None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            return None
        return storable_id(str(value))

    def _domain(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self._domain_field) if self._domain_field else None
        if isinstance(value, float):
            # Columns of whole numbers with gaps are read as 1.0, 2.0, NaN.
            value = (int(value) if value.is_integer() else value) if math.isfinite(value) else None
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int | float) or not str(value).strip():
            return None
        return storable_id(str(value).strip())

    def _group(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self._group_by) if self._group_by else None
        if value is None or not isinstance(value, str | int | float):
            return None
        return _sha256("group\0" + str(value))


def no_column(field: str, column: str, columns: Collection[str]) -> str:
    """Why nothing can be read, and what to do."""
    listed = ", ".join(escape(str(name), 50) for name in list(columns)[:20]) or "none"
    return (
        f"no row has a column {escape(column, 50)!r} (columns: {listed}); "
        f"name the right one, e.g. --set source.text_fields.{field}=COLUMN"
    )


def canonical(value: object, column: str) -> str:
    """``value`` as canonical text.

    Raises:
        Unusable: it is no text, blank, or not to be stored.
    """
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise Unusable("not a text", f"column {escape(column, 50)} is {kind}")
    if "\0" in value:
        raise Unusable("a NUL character", f"column {escape(column, 50)}")
    _refuse_endless_marks(value)
    text = unicodedata.normalize("NFC", value).strip()
    if not text:
        raise Unusable("blank text", f"column {escape(column, 50)}")
    return text


def _refuse_endless_marks(text: str) -> None:
    """Sorting a run of combining marks takes time with its square; no writing system needs a hundred."""
    if text.isascii():
        return
    for match in _NOT_LATIN_RUN.finditer(text):
        run = 0
        for character in match.group():
            run = run + 1 if unicodedata.combining(character) else 0
            if run > MAX_COMBINING_RUN:
                raise Unusable("too many combining marks", f"more than {MAX_COMBINING_RUN} in a row")


def _turn(user: str, assistant: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _conversation(value: object, max_nesting: int) -> list[dict[str, str]]:
    """Messages from a list, or from a list written as JSON (CSV has no other way)."""
    if isinstance(value, str):
        try:
            value = parse(value, max_nesting=max_nesting)
        except JsonProblem as problem:
            raise Unusable("messages are not valid JSON", problem.reason) from None
    if not isinstance(value, list) or not value:
        raise Unusable("messages are not a list of messages")
    messages = [_message(message) for message in value]
    if messages[-1]["role"] != "assistant":
        raise Unusable("the last message is not the assistant's")
    return messages


def _message(message: object) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise Unusable("a message without a known role", f"known are {', '.join(ROLES)}")
    return {"role": message["role"], "content": canonical(message.get("content"), "messages")}


def storable_id(value: str) -> str:
    """The id as it is, or its hash where a database could not index or hold it (too long, NUL, lone surrogates)."""
    fits = len(value) <= MAX_ID_CHARACTERS and "\0" not in value and _encodable(value)
    return value if fits else "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _encodable(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
