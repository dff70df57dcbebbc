"""YAML as plain text, lists and mappings: no tags, no anchors, no types."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 32


def read_yaml(content: bytes) -> Any:
    """The one document, each scalar as text. ValueError, in words, for what is no YAML, for a tag (it could name a
    type), an anchor or an alias (they let a small file stand for a large one), a name twice, more than `MAX_DEPTH`
    levels. ImportError without the library."""
    import yaml

    class Plain(yaml.BaseLoader):  # type: ignore[misc]  # the library has no annotations
        """PyYAML's loader without types, refusing what could stand for more than it is."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise ValueError(f"line {event.start_mark.line + 1} has an anchor or an alias.")
            if event.tag is not None:
                raise ValueError(f"line {event.start_mark.line + 1} has a tag, which would name a type.")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH}.")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value]
            if len({str(name) for name in names}) != len(names):
                raise ValueError(f"line {node.start_mark.line + 1} has a name twice.")
            return super().construct_mapping(node, deep=deep)

    try:
        return Plain(content).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(f"it is no YAML: {where}{getattr(error, 'problem', None) or type(error).__name__}") from None
