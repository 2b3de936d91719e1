"""Exchanges: where a routing key leads."""

from __future__ import annotations

import re
from functools import lru_cache

KINDS = ("direct", "topic")


@lru_cache(maxsize=4096)
def _pattern(binding: str) -> re.Pattern[str]:
    """`*` is one word, `#` any number of them. The key is matched with a dot before each word."""
    words = (r"(?:\.[^.]*)*" if w == "#" else r"\.[^.]*" if w == "*" else r"\." + re.escape(w) for w in _words(binding))
    return re.compile("".join(words))


def _words(binding: str) -> list[str]:
    """A run of `#` means the same as one, and one cannot make the matcher try for ever."""
    words: list[str] = []
    for word in binding.split("."):
        if word != "#" or not words or words[-1] != "#":
            words.append(word)
    return words


def topic_matches(binding: str, routing_key: str) -> bool:
    """Whether a topic binding takes this routing key."""
    if binding in (routing_key, "#"):
        return True
    return _pattern(binding).fullmatch("." + routing_key) is not None


class Exchange:
    """Bindings, and the rule that reads them."""

    __slots__ = ("auto_delete", "bindings", "durable", "internal", "kind", "name")

    def __init__(
        self, name: str, kind: str, *, durable: bool = True, auto_delete: bool = False, internal: bool = False
    ) -> None:
        self.name = name
        self.kind = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.bindings: dict[str, set[str]] = {}  # routing key -> queue names

    def bind(self, queue: str, routing_key: str) -> None:
        self.bindings.setdefault(routing_key, set()).add(queue)

    def unbind(self, queue: str, routing_key: str) -> None:
        queues = self.bindings.get(routing_key, set())
        queues.discard(queue)
        if not queues:
            self.bindings.pop(routing_key, None)

    def forget(self, queue: str) -> bool:
        """Drop every binding of a queue; True when there was one."""
        keys = [key for key, queues in self.bindings.items() if queue in queues]
        for key in keys:
            self.unbind(queue, key)
        return bool(keys)

    def route(self, routing_key: str) -> set[str]:
        """Names of the queues a message with this key goes to."""
        if self.kind == "direct":
            return self.bindings.get(routing_key, set())
        found: set[str] = set()
        for binding, queues in self.bindings.items():
            if topic_matches(binding, routing_key):
                found |= queues
        return found
