"""Rows become canonical documents, and the digest says which are the same."""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.ingest.normalise import Normal, Normaliser, Unusable, storable_id
from orchestrator.settings import SourceSettings


def normal(row: dict[str, Any], task: Any = "causal-lm", **source: Any) -> Normal:
    return Normaliser(task, SourceSettings(**source), group_by="team")(row)


def test_the_digest_is_sha256_of_the_canonical_json_of_the_fields() -> None:
    canonical = json.dumps({"text": "café"}, ensure_ascii=False, separators=(",", ":"))
    assert normal({"text": " cafe\u0301\n"}).digest == hashlib.sha256(canonical.encode()).hexdigest()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_unicode_form_and_edge_white_space_do_not_change_the_digest(text: str) -> None:
    assume(text.strip())
    other = " \n" + unicodedata.normalize("NFD", text) + "\t"
    assert normal({"text": text}).digest == normal({"text": other}).digest


def test_inner_white_space_changes_the_digest_but_not_the_content() -> None:
    one, two = normal({"text": "a  b"}), normal({"text": "a b"})
    assert one.digest != two.digest
    assert one.content_digest == two.content_digest


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Add:\n\n1 2"}, {"role": "assistant", "content": "3"}]},
        {"messages": '[{"role":"user","content":"Add:\\n\\n1 2"},{"role":"assistant","content":"3"}]'},
        {"prompt": "Add:\n\n1 2", "completion": "3"},
        {"instruction": "Add:", "input": "1 2", "output": "3"},
        {"instruction": "Add:\n\n1 2", "input": " ", "output": "3"},
    ],
)
def test_all_shapes_of_a_dialogue_are_the_same_document(row: dict[str, Any]) -> None:
    expected = normal({"prompt": "Add:\n\n1 2", "completion": "3"}, "sft")
    found = normal(row, "sft")
    assert (found.digest, found.fields) == (expected.digest, expected.fields)


@pytest.mark.parametrize(
    ("row", "task", "reason"),
    [
        ({"text": " \n"}, "causal-lm", "blank text"),
        ({"text": None}, "causal-lm", "not a text"),
        ({"body": "a"}, "causal-lm", "no column 'text'"),
        ({"text": "a\0b"}, "causal-lm", "a NUL character"),
        ({"text": "a\ud800"}, "causal-lm", "not valid Unicode"),
        ({"text": "a" + "\u0301" * 5000}, "causal-lm", "too many combining marks"),
        ({"text": "a", "label": ""}, "classification", "blank text"),
        ({"text": "a", "label": "x" * 300}, "classification", "label too long"),
        ({"text": "a", "label": 1.5}, "classification", "not a text"),
        ({"prompt": "a"}, "sft", "no column 'completion'"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "sft", "a message without a known role"),
        ({"messages": [{"role": "user", "content": "a"}]}, "sft", "the last message is not the assistant's"),
        ({"messages": "[" * 50}, "sft", "messages are not valid JSON"),
        ({"messages": []}, "sft", "messages are not a list of messages"),
    ],
)
def test_a_row_that_is_no_document_says_why(row: dict[str, Any], task: str, reason: str) -> None:
    with pytest.raises(Unusable) as raised:
        normal(row, task)
    assert raised.value.reason == reason


@pytest.mark.parametrize(("given_label", "label"), [(3, "3"), (3.0, "3"), (True, "True"), (" spam ", "spam")])
def test_a_label_becomes_text(given_label: object, label: str) -> None:
    assert normal({"text": "a", "label": given_label}, "classification").label == label


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("law ", "law"), (3, "3"), (3.0, "3"), (2.5, "2.5"), (True, "true"),
        (float("nan"), None), (None, None), ("", None), ({"a": 1}, None), (["law"], None),
    ],
)  # fmt: skip
def test_a_number_names_a_domain_as_it_is_written(value: object, domain: str | None) -> None:
    """A column of whole numbers with gaps is read as floats."""
    assert normal({"text": "x", "of": value}, domain_field="of").domain == domain


def test_columns_can_have_other_names() -> None:
    found = normal({"body": "a", "key": 7}, text_fields={"text": "body"}, id_field="key")
    assert (found.fields, found.external_id) == ({"text": "a"}, "7")


def test_a_mapping_of_a_field_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(Unusable, match="task causal-lm has text"):
        Normaliser("causal-lm", SourceSettings(text_fields={"prompt": "body"}))


@pytest.mark.parametrize("odd", ["x" * 5000, "a\0b", "a\udfff"])
def test_an_id_that_no_database_takes_is_kept_as_its_hash(odd: str) -> None:
    assert storable_id(odd).startswith("sha256:")
    assert storable_id("plain") == "plain"


def test_endless_combining_marks_take_no_time() -> None:
    start = time.process_time()
    with pytest.raises(Unusable):
        normal({"text": "a" + "\u0316\u0301" * 1_000_000})
    assert time.process_time() - start < 1
