"""Reads the keys of one mapping, each with its type; what nobody asked for is an error with a suggestion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from muster.config.document import Document
from muster.errors import ConfigInvalid

_NOTHING = object()


class Keys:
    """One mapping of a document. A key that is absent or null reads as its default."""

    def __init__(self, document: Document, path: Sequence[str | int] = ()) -> None:
        self.document = document
        self.path = tuple(path)
        self.warnings: list[str] = []
        value: Any = document.data
        for step in self.path:
            value = value[step]
        self._data: dict[str, Any] = value
        self._known: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def value(self, name: str) -> Any:
        self._known.add(name)
        return self._data.get(name)

    def wrong(self, name: str, why: str, *, value: object = _NOTHING) -> ConfigInvalid:
        """The error for this key: what it says, and what it should say."""
        says = "" if value is _NOTHING else f" is {value!r:.120}"
        return self.document.refuse([*self.path, name], f"{'.'.join(map(str, [*self.path, name]))}{says}; {why}")

    def text(self, name: str, default: str | None = None) -> str | None:
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, f"it must be text: put it in quotes, as in {name}: '{value}'", value=value)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "it must be true or false", value=value)
        return value

    def number(self, name: str, default: float, *, least: float, most: float = float("inf")) -> float:
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, f"it must be a number, as in {name}: {max(default, least):g}", value=value)
        if not least <= value <= most:
            limits = f"at least {least:g}" if most == float("inf") else f"from {least:g} to {most:g}"
            raise self.wrong(name, f"it must be {limits}", value=value)
        return value

    def whole(self, name: str, default: int, *, least: int, most: float = float("inf")) -> int:
        value = self.number(name, default, least=least, most=most)
        if not isinstance(value, int):
            raise self.wrong(name, f"it must be a whole number, as in {name}: {default}", value=value)
        return value

    def whole_or_none(self, name: str, *, least: int, most: int) -> int | None:
        return None if self.value(name) is None else self.whole(name, least, least=least, most=most)

    def uuid(self, name: str) -> UUID | None:
        value = self.value(name)
        return None if value is None else self._uuid(name, value)

    def uuids(self, name: str) -> tuple[UUID, ...] | None:
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(name, "it must be a list of ids, one a line after `- `", value=value)
        return tuple(self._uuid(name, item) for item in value)

    def file(self, name: str, directory: Path) -> Path | None:
        """A path; `~` and `$NAME` are expanded, a relative one is meant from `directory`."""
        value = self.text(name)
        if value is None:
            return None
        expanded = os.path.expandvars(value)
        if not expanded or "\0" in expanded:
            raise self.wrong(name, "it must be a path", value=value)
        return directory / Path(expanded).expanduser()

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.value(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "it must be a block of keys, indented below it", value=value)
        return value

    def block(self, name: str) -> Keys | None:
        return None if self.mapping(name) is None else Keys(self.document, [*self.path, name])

    def ignore(self, name: str, why: str) -> None:
        """Accept a key that has no meaning here, with a warning that says why."""
        if name in self._data:
            self.warnings.append(f"{self.document.file}: {name} is ignored: {why}")
        self._known.add(name)

    def forbid(self, name: str, why: str) -> None:
        if name in self._data:
            raise self.wrong(name, why)

    def end(self) -> None:
        """Refuse what was not asked for, with the nearest known key."""
        for name in self._data:
            if name not in self._known:
                self._unknown(name)

    def _unknown(self, name: str) -> NoReturn:
        from difflib import get_close_matches

        near = get_close_matches(name, sorted(self._known), 1, 0.6)
        fix = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(sorted(self._known))}"
        raise self.wrong(name, f"unknown key; {fix}")

    def _uuid(self, name: str, value: object) -> UUID:
        try:
            return UUID(str(value))
        except ValueError:
            raise self.wrong(name, "an id looks like 6d0ba55f-de15-4af2-827d-05c50c338aa7", value=value) from None
