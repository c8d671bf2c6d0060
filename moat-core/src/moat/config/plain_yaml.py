"""Reads YAML that nobody vouches for: mappings, lists and text, and nothing else that YAML can do.

Every scalar stays the text that stands there, so that `no`, `1.10` and `017` mean themselves; whoever knows what a
value is for makes a number of it. Refused are anchors and aliases, tags, keys that are no text or stand twice, a second
document, control characters, and whatever is longer or deeper than settings are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from moat.config.checkout import LIMIT_BYTES

LIMIT_DEPTH = 12
_NOTHING = ("", "~", "null", "Null", "NULL")

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"
Place: TypeAlias = tuple[str | int, ...]


class NotPlain(Exception):
    """A text that is not plain YAML. line: from 1, 0 where it is not known."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


@dataclass(frozen=True, slots=True)
class Plain:
    """What was read. lines: place, as keys and indices from the outside, → its line from 1."""

    value: Value
    lines: Mapping[Place, int]


def read_plain(data: bytes) -> Plain:
    """Return what data says. Raises NotPlain."""
    if len(data) > LIMIT_BYTES:
        raise NotPlain(f"it is longer than {LIMIT_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NotPlain("it is not UTF-8") from None
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        raise NotPlain(failure.problem or "it is not YAML", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, ValueError, OverflowError):  # control characters; escapes of what is no character
        raise NotPlain("it holds what is no text") from None
    lines: dict[Place, int] = {}
    return Plain(_value(node, (), lines) if node is not None else None, lines)


def _check_events(text: str) -> None:
    """Raise for what makes YAML more than a notation, before anything is built from it."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise NotPlain("anchors and aliases (& and *) are not read; put such values in quotes", line)
        if getattr(event, "tag", None):
            raise NotPlain("tags (!) are not read; put such values in quotes", line)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise NotPlain("it holds more than one document", line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > LIMIT_DEPTH:
            raise NotPlain(f"it is nested deeper than {LIMIT_DEPTH} times", line)


def _value(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Value:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, (*place, number), lines) for number, each in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Value] = {}
        for key, name, value in _entries(node):
            if name in entries:
                raise NotPlain(f"the key {name!r} stands twice", key.start_mark.line + 1)
            entries[name] = _value(value, (*place, name), lines)
            lines[(*place, name)] = key.start_mark.line + 1
        return entries
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise NotPlain("it holds what is no text", lines[place])
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return None if is_plain and node.value in _NOTHING else str(node.value)


def _entries(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise NotPlain("a key must be text", key.start_mark.line + 1)
        yield key, str(key.value), value
