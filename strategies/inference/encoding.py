"""Examples of each task as token ids and targets, the same for training, measuring and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.errors import Refused
from strategies.inference.bank.rendering import Renderer

IGNORED = -100
"""Target of a token whose prediction does not count."""
Example = tuple[list[int], list[int]]
"""Token ids, and for each of them the target that it predicts (the next token, or :data:`IGNORED`)."""


class Encoder(Renderer):
    """A renderer that makes examples of at most ``max_length`` tokens."""

    refusal = Refused

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer)
        self.max_length = max_length

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as training sees it: opened as the tokenizer does, closed by the end token."""
        if self.end is None:
            raise Refused("the tokenizer has no end token (eos_token) to put between documents; set one")
        return [[*self.start, *ids, self.end] for ids in self.texts(texts)]

    def classified(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as a classifier reads it."""
        return self.read(texts, self.max_length)

    def dialogues(self, dialogues: Sequence[Sequence[Mapping[str, str]]]) -> list[Example]:
        """Ids and targets of each dialogue; only the last message (and the token that closes it) counts.

        Longer than ``max_length``: the prompt loses its oldest tokens first, then the answer its last ones.
        """
        contents = self.texts([message["content"] for dialogue in dialogues for message in dialogue])
        examples, at = [], 0
        for dialogue in dialogues:
            parts = contents[at : at + len(dialogue)]
            at += len(dialogue)
            examples.append(self._cut(*self.split(dialogue, parts, self.form)))
        return examples

    def _cut(self, prompt: list[int], answer: list[int]) -> Example:
        answer = answer[: self.max_length - 1]
        prompt = prompt[max(0, len(prompt) + len(answer) - self.max_length) :]
        ids = [*prompt, *answer]
        targets = [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
        return ids, targets
