"""Texts and messages to token ids, the same for training, evaluation, and what an exported bank is asked.

Text of a data set or a request is data: a special token spelled out in it becomes ordinary tokens
(``split_special_tokens``). Only what the tokenizer or its chat template adds may become a control token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .files import BadBank, Form

Messages = Sequence[Mapping[str, str]]

PROMPT = 256
"""Most tokens of a prompt that a router reads: what it costs does not grow with the request."""

_MARK = "qxj{}vzk"
_MARKS = re.compile(r"qxj(\d+)vzk")


class Renderer:
    """A tokenizer as this project uses it. ``start`` opens a document if the tokenizer does so, ``end`` closes it."""

    refusal: type[Exception] = BadBank
    """What is raised where the tokenizer or its template cannot be used."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end: int | None = tokenizer.eos_token_id
        self.start = _start(tokenizer)
        self.form: Form = "template" if getattr(tokenizer, "chat_template", None) else "plain"
        """How messages are written."""
        self._skeletons: dict[tuple[str, ...], list[list[int] | int]] = {}

    @property
    def opening(self) -> int:
        """The token that a document's first token is predicted from: what stands before a document in training."""
        if not self.start and self.end is None:
            raise self.refusal("the tokenizer has no end token (eos_token) to put between documents; set one")
        return self.start[0] if self.start else int(self.end or 0)

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Plain ids of each text."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return list(found["input_ids"])

    def read(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Ids of each text as a classifier reads it, cut to ``max_length``, with the tokenizer's own special tokens.

        A text without any token is one token of padding: a row of nothing has no feature.
        """
        if not texts:
            return []
        found = self.tokenizer(
            list(texts), truncation=True, max_length=max_length, split_special_tokens=True, verbose=False
        )
        return [list(ids) or [self.tokenizer.pad_token_id] for ids in found["input_ids"]]

    def request(self, prompt: str | Messages, form: Form) -> list[int]:
        """Ids of a request, as training and evaluation have them before what is to be answered.

        A string is a text to go on from (``form`` text), or one user's message; messages wait for their answer.
        """
        if form == "text":
            if not isinstance(prompt, str):
                raise self.refusal("this model goes on from texts and knows no messages; give it one string")
            return [self.opening, *self.texts([prompt])[0]]
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        parts = [*self.texts([message["content"] for message in asked]), []]
        return self.split([*asked, {"role": "assistant", "content": ""}], parts, form)[0]

    def split(self, dialogue: Messages, parts: list[list[int]], form: Form) -> tuple[list[int], list[int]]:
        """Ids of a dialogue up to its last message, and of that one with what closes it; ``parts`` are the messages'
        own ids."""
        return self._templated(dialogue, parts) if form == "template" else self._plain(parts)

    def _plain(self, parts: list[list[int]]) -> tuple[list[int], list[int]]:
        if self.end is None:
            raise self.refusal("the tokenizer has neither a chat template nor an end token (eos_token); set one")
        (newline,) = self.texts(["\n"])
        prompt = [*self.start, *(token for part in parts[:-1] for token in (*part, *newline))]
        return prompt or [self.end], [*parts[-1], self.end]

    def _templated(self, dialogue: Messages, parts: list[list[int]]) -> tuple[list[int], list[int]]:
        roles = tuple(message["role"] for message in dialogue)
        skeleton = self._skeletons.get(roles)
        if skeleton is None:
            skeleton = self._skeletons[roles] = self._render(roles)
        last = skeleton.index(len(roles) - 1)
        prompt = [token for part in skeleton[:last] for token in (parts[part] if isinstance(part, int) else part)]
        return prompt or [self._closing(skeleton, last)], [*parts[-1], self._closing(skeleton, last)]

    def _closing(self, skeleton: list[list[int] | int], last: int) -> int:
        after = skeleton[last + 1] if last + 1 < len(skeleton) else []
        if isinstance(after, list) and after and after[0] in self.tokenizer.all_special_ids:
            return after[0]
        if self.end is None:
            raise self.refusal("neither the chat template nor the tokenizer closes an answer; set an eos_token")
        return self.end

    def _render(self, roles: tuple[str, ...]) -> list[list[int] | int]:
        """The template around marked messages: token ids of its own text, and the place of each message.

        Messages are put in as ids afterwards, so that their text can neither steer the template nor spell its tokens.
        """
        messages = [{"role": role, "content": _MARK.format(index)} for index, role in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:
            raise self.refusal(f"the chat template refuses the roles {', '.join(roles)}: {error}") from error
        pieces = _MARKS.split(text)
        if pieces[1::2].count(str(len(roles) - 1)) != 1:
            raise self.refusal("the chat template does not show the answer once as it is; use a template that does")
        own = self.tokenizer(pieces[0::2], add_special_tokens=False, verbose=False)["input_ids"]
        skeleton: list[list[int] | int] = [own[0]]
        for index, ids in zip(pieces[1::2], own[1:], strict=True):
            skeleton += [int(index), ids]
        return skeleton


def routing(max_length: int) -> int:
    """How many of a prompt's tokens, its last ones, a router reads.

    Rows of ``max_length`` tokens lose the oldest tokens of a long prompt, and a request loses none. It is routed as the
    row that it would be, as long as the answer takes no more than the quarter that this leaves.
    """
    return min(PROMPT, max_length * 3 // 4)


def _start(tokenizer: Any) -> tuple[int, ...]:
    """The opening token, if the tokenizer puts one before a text by itself."""
    bos = tokenizer.bos_token_id
    ids = tokenizer("a", verbose=False)["input_ids"]
    return (bos,) if bos is not None and ids[:1] == [bos] else ()
