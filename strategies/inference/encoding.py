"""Examples of each task as token ids and targets, the same for training, measuring and evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from strategies.errors import Refused
from strategies.inference.bank.rendering import Renderer
from strategies.settings import Task

IGNORED = -100
"""Target of a token whose prediction does not count."""
Example = tuple[list[int], list[int]]
"""Token ids, and for each of them the target that it predicts (the next token, or :data:`IGNORED`)."""


class Columns(Protocol):
    """Documents by what they have in common: ``text``, ``messages`` as JSON, ``label``."""

    def column(self, name: str) -> list[Any]: ...


class Encoder(Renderer):
    """A renderer that makes examples of at most ``max_length`` tokens."""

    refusal = Refused

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer)
        self.max_length = max_length

    def examples(self, documents: Columns, task: Task, labels: Sequence[str] = ()) -> list[list[Example]]:
        """What each document is scored by: the windows of a text, a dialogue, or a text whose one target is its class.

        The class is its place in ``labels``, or :data:`IGNORED` if it is none of them.
        """
        if task == "sft":
            return [[example] for example in self.dialogues(messages_of(documents.column("messages")))]
        texts = documents.column("text")
        if task == "causal-lm":
            return [windows(self.opening, ids, self.max_length) for ids in self.texts(texts)]
        place = {label: index for index, label in enumerate(labels)}
        targets = [place.get(label, IGNORED) for label in documents.column("label")]
        return [[(ids, [target])] for ids, target in zip(self.classified(texts), targets, strict=True)]

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


def windows(opening: int, ids: Sequence[int], length: int) -> list[Example]:
    """A text in windows of ``length`` tokens; each begins with the token before it, so each token counts once."""
    stream = [opening, *ids]
    return [
        (stream[start : start + length][: len(target)], list(target))
        for start in range(0, len(ids), length)
        if (target := stream[start + 1 : start + 1 + length])
    ]


def with_targets(documents: Iterable[Sequence[Example]]) -> list[Example]:
    """The examples of all documents that have a target: not those of a class that the model does not know."""
    return [example for own in documents for example in own if any(target != IGNORED for target in example[1])]


def messages_of(values: Sequence[str]) -> list[list[dict[str, str]]]:
    """Dialogues from their JSON."""
    return [json.loads(value) for value in values]
