"""A YAML loader for files of strangers: plain values, no aliases, no key twice, bounded in nodes and depth."""

from __future__ import annotations

from types import GeneratorType
from typing import Any, NoReturn

import yaml


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that also refuses what only serves to confuse or to exhaust."""

    def __init__(self, data: bytes, *, max_nodes: int, max_depth: int) -> None:
        super().__init__(data)
        self._nodes_left = max_nodes
        self._depth_left = max_depth

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As in yaml, counted."""
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases are not taken; write the value out")
        self._nodes_left -= 1
        self._depth_left -= 1
        if self._nodes_left < 0 or self._depth_left < 0:
            self._refuse("it is nested too deeply or too large")
        node = super().compose_node(parent, index)
        self._depth_left += 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """As in yaml; what JSON has no word for is refused."""
        found = super().construct_object(node, deep=deep)
        if not isinstance(found, dict | list | str | int | float | bool | None | GeneratorType):
            problem = f"{node.tag} is not taken; write plain text, numbers, lists and mappings"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return found

    def _refuse(self, problem: str) -> NoReturn:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        raise yaml.composer.ComposerError(None, None, problem, mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As in yaml; a key that is there twice is an error, and keys are text."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


# A date stays the text that it is.
StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in StrictLoader.yaml_implicit_resolvers.items()
}
