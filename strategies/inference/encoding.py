"""Text to token ids, the same for training, measuring and evaluation.

Text of a data set is data: a special token spelled out in it becomes ordinary tokens (``split_special_tokens``). Only
what the tokenizer or its chat template adds may become a control token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from strategies.errors import Refused

IGNORED = -100
"""Target of a token whose prediction does not count."""
Example = tuple[list[int], list[int]]
"""Token ids, and for each of them the target that it predicts (the next token, or :data:`IGNORED`)."""

_MARK = "qxj{}vzk"
_MARKS = re.compile(r"qxj(\d+)vzk")


class Encoder:
    """A tokenizer as this project uses it. ``start`` opens a document if the tokenizer does so, ``end`` closes it."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.end: int | None = tokenizer.eos_token_id
        self.start = _start(tokenizer)
        self.templated = bool(getattr(tokenizer, "chat_template", None))
        self._skeletons: dict[tuple[str, ...], list[list[int] | int]] = {}

    @property
    def opening(self) -> int:
        """The token that a document's first token is predicted from: what stands before a document in training."""
        if not self.start and self.end is None:
            raise Refused("the tokenizer has no end token (eos_token) to put between documents; set one")
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

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as training sees it: opened as the tokenizer does, closed by the end token."""
        if self.end is None:
            raise Refused("the tokenizer has no end token (eos_token) to put between documents; set one")
        return [[*self.start, *ids, self.end] for ids in self.texts(texts)]

    def classified(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as a classifier reads it, cut to ``max_length``, with the tokenizer's own special tokens."""
        found = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, split_special_tokens=True, verbose=False
        )
        return list(found["input_ids"])

    def dialogues(self, dialogues: Sequence[Sequence[Mapping[str, str]]]) -> list[Example]:
        """Ids and targets of each dialogue; only the last message (and the token that closes it) counts.

        Longer than ``max_length``: the prompt loses its oldest tokens first, then the answer its last ones.
        """
        contents = self.texts([message["content"] for dialogue in dialogues for message in dialogue])
        examples, at = [], 0
        for dialogue in dialogues:
            parts = contents[at : at + len(dialogue)]
            at += len(dialogue)
            prompt, answer = self._templated(dialogue, parts) if self.templated else self._plain(dialogue, parts)
            examples.append(self._cut(prompt, answer))
        return examples

    def _cut(self, prompt: list[int], answer: list[int]) -> Example:
        answer = answer[: self.max_length - 1]
        prompt = prompt[max(0, len(prompt) + len(answer) - self.max_length) :]
        ids = [*prompt, *answer]
        targets = [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
        return ids, targets

    def _plain(self, dialogue: Sequence[Mapping[str, str]], parts: list[list[int]]) -> tuple[list[int], list[int]]:
        if self.end is None:
            raise Refused("the tokenizer has neither a chat template nor an end token (eos_token); set one")
        newline = self._newline()
        prompt = [*self.start, *(token for part in parts[:-1] for token in (*part, *newline))]
        return prompt or [self.end], [*parts[-1], self.end]

    def _newline(self) -> list[int]:
        return self.texts(["\n"])[0]

    def _templated(self, dialogue: Sequence[Mapping[str, str]], parts: list[list[int]]) -> tuple[list[int], list[int]]:
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
            raise Refused("neither the chat template nor the tokenizer closes an answer; set an eos_token")
        return self.end

    def _render(self, roles: tuple[str, ...]) -> list[list[int] | int]:
        """The template around marked messages: token ids of its own text, and the place of each message.

        Messages are put in as ids afterwards, so that their text can neither steer the template nor spell its tokens.
        """
        messages = [{"role": role, "content": _MARK.format(index)} for index, role in enumerate(roles)]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:
            raise Refused(f"the chat template refuses the roles {', '.join(roles)}: {error}") from error
        pieces = _MARKS.split(text)
        if pieces[1::2].count(str(len(roles) - 1)) != 1:
            raise Refused("the chat template does not show the answer once as it is; use a template that does")
        own = self.tokenizer(pieces[0::2], add_special_tokens=False, verbose=False)["input_ids"]
        skeleton: list[list[int] | int] = [own[0]]
        for index, ids in zip(pieces[1::2], own[1:], strict=True):
            skeleton += [int(index), ids]
        return skeleton


def _start(tokenizer: Any) -> tuple[int, ...]:
    """The opening token, if the tokenizer puts one before a text by itself."""
    bos = tokenizer.bos_token_id
    ids = tokenizer("a", verbose=False)["input_ids"]
    return (bos,) if bos is not None and ids[:1] == [bos] else ()
