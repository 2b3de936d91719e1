"""What a user may hand to a template, and how it looks from inside one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from muster.errors import Invalid

RESERVED = frozenset({"_GC", "parent_config", "mapped_identity", "user_runtime"})
LIMIT_CHARACTERS = 256 * 1024
LIMIT_DEPTH = 16


class Value(str):
    """A text of the user's. It equals its plain form, and its JSON-quoted one as well.

    Templates for the official endpoint see every text in quotes and say `{% if engine == '"GlobusComputeEngine"' %}`;
    ours may simply say `== "GlobusComputeEngine"`. Both are true, and so is `"GlobusCompute" in engine`.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if str.__eq__(self, other) is True:
            return True
        return isinstance(other, str) and not isinstance(other, Value) and other[:1] == '"' and other == quoted(self)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, part: object) -> bool:
        return isinstance(part, str) and (str.__contains__(self, part) or part in quoted(self))


def quoted(text: str) -> str:
    """The JSON form, in one line."""
    return json.dumps(str(text), ensure_ascii=False)


def check(values: Mapping[str, Any], *, source: str = "user_endpoint_config") -> None:
    """Refuse names that the template reserves, and values that are too large, too deep or not text that can be sent."""
    for name in sorted(RESERVED.intersection(values)):
        raise Invalid(why=f"{source} may not contain {name!r}: the name is reserved")
    left = LIMIT_CHARACTERS
    todo: list[tuple[str, Any, int]] = [(source, dict(values), 0)]
    while todo:
        where, value, depth = todo.pop()
        left -= _size(where, value)
        if left < 0:
            raise Invalid(why=f"{source} is larger than {LIMIT_CHARACTERS} characters")
        if depth > LIMIT_DEPTH:
            raise Invalid(why=f"{source} is nested deeper than {LIMIT_DEPTH} levels")
        if isinstance(value, dict):
            todo += [(f"{where}.{key:.40}", inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list):
            todo += [(f"{where}[{at}]", inner, depth + 1) for at, inner in enumerate(value)]


def _size(where: str, value: Any) -> int:
    texts: list[Any] = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
    for text in texts:
        if not isinstance(text, str):
            raise Invalid(why=f"a key of {where} is not text")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise Invalid(why=f"{where} holds half a character (a lone surrogate)")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(why=f"{where} is not a finite number")
    if not isinstance(value, (str, int, float, dict, list, type(None))):
        raise Invalid(why=f"{where} is of type {type(value).__name__}, which JSON does not know")
    return 8 + sum(map(len, texts))


def seen(value: Any) -> Any:
    """The same data, with every text a `Value`."""
    if isinstance(value, str):
        return str.__new__(Value, value)
    if isinstance(value, Mapping):
        return {str.__new__(Value, key): seen(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [seen(inner) for inner in value]
    return value


def plain(value: Any) -> Any:
    """The same data of ordinary JSON types again; TypeError for anything else a template computed."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_key(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    raise TypeError(f"a {type(value).__name__} cannot be written into a configuration")


def written(value: Any) -> str:
    """Data as it stands inside a longer text: the JSON form, numbers and lists included."""
    return json.dumps(plain(value), ensure_ascii=False)


def _key(key: Any) -> str:
    return str.__str__(key) if isinstance(key, str) else str(key)
