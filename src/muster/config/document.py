"""Strict YAML: one mapping of plain data, and the place of every key for error messages.

Stricter than YAML 1.1 where it surprises: a key stands once, keys are text, `1:00:00` is text (YAML 1.1 makes it the
number 3600), dates are text. No tag can name a Python object.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from muster.errors import ConfigInvalid

LIMIT_BYTES = 4 * 1024 * 1024
LIMIT_NODES = 100_000  # an alias counts as often as it is used
LIMIT_DEPTH = 60

Steps = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `refuse` makes the error that points at one of its keys."""

    file: str
    data: dict[str, Any]
    root: yaml.Node | None = field(default=None, repr=False, compare=False)

    def where(self, path: Steps) -> str:
        """`line 3, column 5` of the key at the end of `path`, or of the nearest thing around it; empty if unknown."""
        node, mark = self.root, None
        for step in path:
            key, node = _child(node, step)
            mark = key.start_mark if key is not None else mark
        return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"

    def refuse(self, path: Steps, why: str) -> ConfigInvalid:
        place = self.where(path)
        return ConfigInvalid(file=self.file, why=f"{place}: {why}" if place else why)


def read_text(path: Path) -> str:
    """The file's text; ConfigInvalid says what stands in the way of reading it."""
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as why:
        raise ConfigInvalid(file=str(path), why=f"cannot be read ({why.strerror})") from None
    if len(raw) > LIMIT_BYTES:
        raise ConfigInvalid(file=str(path), why=f"is larger than {LIMIT_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as why:
        raise ConfigInvalid(file=str(path), why=f"is not UTF-8 text (byte {why.start})") from None


def read_document(text: str, file: str) -> Document:
    """The one mapping in `text` (empty text is an empty mapping)."""
    if len(text) > LIMIT_BYTES:
        raise ConfigInvalid(file=file, why=f"is larger than {LIMIT_BYTES} bytes")
    try:
        root = (loader := _Loader(text)).get_single_node()
        data = {} if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as why:
        raise ConfigInvalid(file=file, why=_sentence(why)) from None
    except (yaml.YAMLError, ValueError) as why:
        raise ConfigInvalid(file=file, why=f"is not YAML ({' '.join(str(why).split())[:200]})") from None
    except RecursionError:
        raise ConfigInvalid(file=file, why="is nested too deeply") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigInvalid(file=file, why="must be a mapping (lines of `key: value`)")
    _bound(data, file)
    return Document(file, data, root)


class _Loader(yaml.CSafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {getattr(key, 'value', '?')!s:.60} is not text; write it in quotes",
                    problem_mark=key.start_mark,
                )
            if key.value in seen:
                first = seen[key.value].line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r:.80} stands here again (first in line {first}); remove one",
                    problem_mark=key.start_mark,
                )
            seen[key.value] = key.start_mark
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag.rpartition(":")[2] not in {"int", "float", "timestamp"}]
    for first, rules in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None, None


def _sentence(why: yaml.MarkedYAMLError) -> str:
    mark = why.problem_mark or why.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    context = f" ({why.context})" if why.context and why.problem_mark else ""
    return f"{place}{why.problem or why.context}{context}"


def _bound(data: object, file: str) -> None:
    """Aliases can make a short text unfold without end, or contain itself."""
    left, todo = LIMIT_NODES, [(data, 0)]
    while todo:
        value, depth = todo.pop()
        left -= 1
        if left < 0 or depth > LIMIT_DEPTH:
            raise ConfigInvalid(file=file, why="is nested too deeply, or unfolds to too many values")
        if isinstance(value, dict):
            todo += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            todo += [(inner, depth + 1) for inner in value]
