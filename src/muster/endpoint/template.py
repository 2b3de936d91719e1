"""Renders the administrator's template with a user's values. Values are data, never syntax.

While the template runs, every value that it emits is written as a mark: random text that YAML cannot misread. Only
when the text is loaded do the marks become the values again, inside the finished tree. So no value, whatever it
contains, can add a key, end a quotation or open a block; it arrives exactly, in a scalar, list, mapping or key.

    account: {{ ACCOUNT }}                     the value, exactly
    worker_init: source {{ VENV }}/activate    inside a longer text: its JSON-quoted form (as the official endpoint)
    worker_init: source {{ VENV|shell_escape }}/activate     one word for a shell, whatever it contains

What the administrator wrote stays as it stands, literals in expressions too: `{{ "{}" }}` is an empty mapping.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.config import Document, read_document
from muster.endpoint.values import Value, seen, written
from muster.errors import ConfigInvalid

_LITERAL = re.compile(r"[A-Za-z0-9_/.](?:[A-Za-z0-9_/.@+%=,-]|:(?=[A-Za-z0-9_/.]))*")


@dataclass(frozen=True, slots=True)
class Site:
    """What a template knows without the user: `_GC.parent_config`, `_GC.mapped_identity`, `_GC.env`."""

    parent_config: Mapping[str, Any]
    mapped_identity: Mapping[str, Any]
    env: Mapping[str, str]
    directory: Path | None = None  # of the template, for `extends` and `include`


class Marks:
    """The values emitted so far, each under a mark that nobody can guess."""

    def __init__(self) -> None:
        self._prefix = f"{secrets.randbits(96):030d}"  # digits survive upper, lower, title and indent
        self._values: list[tuple[Any, bool]] = []
        self._pattern = re.compile(f'(")?/{self._prefix}-([0-9]+)/(?(1)")')

    def put(self, value: Any, *, bare: bool = False) -> str:
        """Text for the template's output. A bare mark becomes plain text inside a longer one, the others JSON."""
        mark = f"/{self._prefix}-{len(self._values)}/"
        self._values.append((value, bare))
        return mark if bare else f'"{mark}"'

    def fill(self, tree: Any, document: Document, path: tuple[str | int, ...] = ()) -> Any:
        """The tree with values in place of marks; ConfigInvalid when a key came to stand twice."""
        if isinstance(tree, str):
            return self._whole(tree)
        if isinstance(tree, list):
            return [self.fill(inner, document, (*path, at)) for at, inner in enumerate(tree)]
        if not isinstance(tree, dict):
            return tree
        filled: dict[str, Any] = {}
        for key, inner in tree.items():
            name = self.text(key)
            if name in filled:
                raise document.refuse((*path, key), f"the key {name!r:.80} stands here again")
            filled[name] = self.fill(inner, document, (*path, key))
        return filled

    def text(self, text: str) -> str:
        """Fill the marks inside a text."""
        return self._pattern.sub(self._inner, text)

    def _whole(self, text: str) -> Any:
        match = self._pattern.fullmatch(text)
        return self._values[int(match[2])][0] if match and not match[1] else self.text(text)

    def _inner(self, match: re.Match[str]) -> str:
        value, bare = self._values[int(match[2])]
        plain_text = value if isinstance(value, str) else written(value)
        if not match[1]:
            return plain_text
        return f'"{plain_text}"' if bare else written(value)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template: `document` is what it says, with the user's values in place."""

    document: Document

    def text(self) -> str:
        """The configuration as YAML, for people and for the status report."""
        import yaml

        return yaml.dump(self.document.data, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)


def render(
    template: str, values: Mapping[str, Any], runtime: Mapping[str, Any], site: Site, *, file: str = "template"
) -> Rendered:
    """Render `template` for one user. ConfigInvalid names the line, or the value that is missing."""
    if not re.search(r"\{[{%#]", template):  # nothing to render: spare the start the template engine
        return Rendered(read_document(template, file))
    from muster.endpoint.sandbox import run

    marks = Marks()
    site_values = {"parent_config": site.parent_config, "mapped_identity": site.mapped_identity, "env": site.env}
    reserved = {**{name: _of_site(value) for name, value in site_values.items()}, "user_runtime": seen(runtime)}
    bare = {name: value for name, value in reserved.items() if name != "env"}
    text = run(template, {**seen(values), **bare, "_GC": reserved}, marks, directory=site.directory, file=file)
    try:
        document = read_document(text, f"{file} (rendered)")
    except ConfigInvalid as why:
        # The commonest cause of a text that cannot be loaded: a mark brings its own quotation marks.
        hint = '; write {{ x }}, not "{{ x }}": values bring their own quotes' if '"{{' in template else ""
        raise ConfigInvalid(file=why.facts["file"], why=f"{marks.text(str(why.facts['why']))}{hint}") from None
    return Rendered(replace(document, data=marks.fill(document.data, document)))


class Literal(str):
    """Text that the administrator or the site wrote: emitted as it stands.

    Only `literal` makes one. Calling the class gives ordinary text, because string methods and the sandbox build their
    results that way: whatever was computed from a literal and a value is a value.
    """

    __slots__ = ()

    def __new__(cls, text: object = "") -> str:  # type: ignore[misc]
        return str(text)

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return other == str(self) if isinstance(other, Value) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def literal(text: str) -> Literal:
    return str.__new__(Literal, text)


def _of_site(value: Any) -> Any:
    """Site data emits as it stands where YAML cannot misread it; a GECOS field may hold anything."""
    if isinstance(value, str):
        return literal(value) if _LITERAL.fullmatch(value) else seen(value)
    if isinstance(value, Mapping):
        return {str(key): _of_site(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_site(inner) for inner in value]
    return value
