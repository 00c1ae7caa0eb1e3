"""Data stays data: token ids, targets and rows of each task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.contract import ModelFiles
from strategies.errors import Refused
from strategies.inference.encoding import IGNORED, Encoder
from strategies.inference.load import load_tokenizer
from strategies.settings import Task
from strategies.training.data import Documents, training_side
from strategies.training.packing import best_fit
from strategies.training.rows import Rows, encode, encode_rows, lay_out
from tests.training import makers


def encoder(folder: Path, length: int = 32) -> Encoder:
    return Encoder(load_tokenizer(ModelFiles(path=str(folder))), length)


def say(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


SPELLED = "before <|endoftext|> and <|assistant|> after <|end|>"


def test_special_tokens_spelled_out_in_a_text_are_ordinary_tokens(llama: Path) -> None:
    made = encoder(llama)
    special = set(made.tokenizer.all_special_ids)
    (ids,) = made.texts([SPELLED])
    assert not special & set(ids)
    assert made.tokenizer.decode(ids) == SPELLED
    assert made.documents([SPELLED]) == [[*ids, made.end]]


def test_special_tokens_spelled_out_in_a_dialogue_are_ordinary_tokens(chat: Path) -> None:
    made = encoder(chat, 200)
    ((ids, _),) = made.dialogues([say(SPELLED, SPELLED)])
    names = [made.tokenizer.convert_ids_to_tokens(i) for i in ids if i in made.tokenizer.all_special_ids]
    assert names == ["<|user|>", "<|assistant|>", "<|end|>"]


def test_special_tokens_spelled_out_for_a_classifier_are_ordinary_tokens(bert: Path) -> None:
    made = encoder(bert, 200)
    assert not set(made.tokenizer.all_special_ids) & set(made.classified([SPELLED])[0])


def test_only_the_answer_and_the_token_that_closes_it_count(chat: Path) -> None:
    made = encoder(chat, 200)
    ((ids, targets),) = made.dialogues([say("what is up?", "the sky")])
    counted = [target for target in targets if target != IGNORED]
    assert counted == [*made.texts(["the sky"])[0], made.tokenizer.convert_tokens_to_ids("<|end|>")]
    assert [i for i, target in zip(ids[1:], targets, strict=False) if target != IGNORED] == counted


def test_a_dialogue_is_what_the_chat_template_renders(chat: Path) -> None:
    made = encoder(chat, 200)
    dialogue = say("ask", "reply", "ask again", "reply again")
    ((ids, _),) = made.dialogues([dialogue])
    text = made.tokenizer.apply_chat_template(dialogue, tokenize=False)
    assert made.tokenizer.decode(ids) == text.removesuffix("\n")


def test_without_a_template_a_dialogue_is_lines_and_an_end(llama: Path) -> None:
    made = encoder(llama, 200)
    ((ids, _),) = made.dialogues([say("ask", "reply")])
    assert made.tokenizer.decode(ids) == "ask\nreply<|endoftext|>"


@pytest.mark.parametrize(("asked", "answered"), [(40, 3), (3, 40), (40, 40)])
def test_a_long_dialogue_keeps_as_much_of_the_answer_as_fits(llama: Path, asked: int, answered: int) -> None:
    made = encoder(llama, 16)
    ((ids, targets),) = made.dialogues([say("q " * asked, "a " * answered)])
    assert len(ids) == len(targets) <= 16
    assert sum(target != IGNORED for target in targets) == min(15, len(made.texts(["a " * answered])[0]) + 1)


def test_a_template_that_hides_the_answer_is_refused(chat: Path) -> None:
    made = encoder(chat)
    made.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(Refused, match="does not show the answer"):
        made.dialogues([say("ask", "reply")])


def rows_of(
    tmp_path: Path, model: Path, documents: list[dict[str, Any]], task: Task, *, length: int = 32
) -> tuple[Documents, Rows]:
    source = makers.source(tmp_path / "s.parquet", documents, heldout=2)
    found = training_side(source, task)
    return found, encode_rows(found, encoder(model, length), task, tick=lambda: None, packing=False)


def test_a_row_knows_which_documents_it_touches(tmp_path: Path, llama: Path) -> None:
    documents, rows = rows_of(tmp_path, llama, makers.text_documents(12), "causal-lm")
    made = encoder(llama)
    texts = dict(zip(documents.rows.tolist(), documents.column("text"), strict=True))
    stream = [(place, token) for place, text in texts.items() for token in made.documents([text])[0]]
    for row in range(len(rows)):
        inside = stream[row * 32 : row * 32 + 32]
        assert rows.ids[row * 32 : row * 32 + 32].tolist() == [token for _, token in inside]
        drawn = np.arange(len(rows)) == row
        assert set(np.flatnonzero(rows.touched(drawn))) == {place for place, _ in inside}
    assert rows.dropped == len(stream) - 32 * len(rows) < 32


def test_held_out_documents_are_in_no_row(tmp_path: Path, llama: Path) -> None:
    documents, rows = rows_of(tmp_path, llama, makers.text_documents(12), "causal-lm")
    assert len(documents) == 10
    assert rows.size == 12
    assert not rows.touched(np.ones(len(rows), bool))[10:].any()


def test_a_short_batch_is_one_padded_row(tmp_path: Path, llama: Path) -> None:
    _, rows = rows_of(tmp_path, llama, makers.text_documents(3), "causal-lm", length=4096)
    assert (len(rows), rows.dropped) == (1, 0)


@pytest.mark.parametrize(
    ("task", "model", "made", "packing"),
    [
        ("causal-lm", "llama", makers.text_documents(9), False),
        ("sft", "chat", makers.dialogues(9), False),
        ("sft", "chat", makers.dialogues(9), True),
        ("classification", "bert", makers.labelled(9), False),
    ],
    ids=["texts", "examples", "packs", "classes"],
)
def test_some_of_the_encoded_documents_are_laid_out_as_if_they_were_all(
    tmp_path: Path, task: Task, model: str, made: list[dict[str, Any]], packing: bool, request: pytest.FixtureRequest
) -> None:
    documents = training_side(makers.source(tmp_path / "s.parquet", made), task)
    some = np.arange(len(documents)) % 3 > 0
    reader = encoder(request.getfixturevalue(model))
    labels = {"labels": ("calm", "angry")} if task == "classification" else {}
    encoded = encode(documents, reader, task, tick=lambda: None, **labels).where(some)
    found = vars(lay_out(encoded, task, reader.max_length, packing=packing))
    alone = vars(encode_rows(documents.where(some), reader, task, packing=packing, tick=lambda: None, **labels))
    assert len(encoded) == 6
    for name, value in alone.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_packs_hold_every_example_once_and_nothing_too_long() -> None:
    lengths = [5, 17, 3, 32, 9, 9, 1, 30, 16]
    packs = best_fit(lengths, 32)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert max(sum(lengths[index] for index in pack) for pack in packs) <= 32
    assert len(packs) == 4


def test_order_of_documents_does_not_depend_on_arrival(tmp_path: Path, llama: Path) -> None:
    documents = makers.text_documents(8)
    _, one = rows_of(tmp_path, llama, documents[:6] + documents[6:], "causal-lm")
    _, two = rows_of(tmp_path, llama, documents[5::-1] + documents[6:], "causal-lm")
    assert one.ids.tolist() == two.ids.tolist()


@pytest.mark.parametrize("change", ["bytes", "column", "missing"])
def test_a_snapshot_that_is_not_the_one_named_is_refused(tmp_path: Path, change: str) -> None:
    source = makers.source(tmp_path / "s.parquet", makers.text_documents(3))
    if change == "bytes":
        (tmp_path / "s.parquet").write_bytes(b"else")
    elif change == "missing":
        (tmp_path / "s.parquet").unlink()
    with pytest.raises(Refused, match=r"restore it|columns"):
        training_side(source, "sft" if change == "column" else "causal-lm")


def test_messages_are_read_from_json(tmp_path: Path, chat: Path) -> None:
    documents = makers.dialogues(6)
    _, rows = rows_of(tmp_path, chat, documents, "sft")
    assert len(rows) == 4
    assert json.loads(documents[0]["messages"])[1]["role"] == "assistant"
