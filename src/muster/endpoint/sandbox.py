"""The Jinja2 side of `muster.endpoint.template`; imported only when a template has something to render."""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from muster.endpoint.template import Literal, Marks, literal
from muster.endpoint.values import plain
from muster.errors import ConfigInvalid

_LITERAL_FILTER = "literal of the administrator"  # no template can name it: it has spaces
_SOURCE = "<template>"


def run(template: str, names: Mapping[str, Any], marks: Marks, *, directory: Path | None, file: str) -> str:
    """The template's output, with marks where values belong. ConfigInvalid says what failed, and where."""
    environment = _Environment(marks, directory)
    try:
        return str(environment.from_string(template).render(names))
    except jinja2.TemplateSyntaxError as why:
        raise ConfigInvalid(file=file, why=f"line {why.lineno}: {why.message}") from None
    except jinja2.UndefinedError as why:
        name = str(why.message or "").partition(" is undefined")[0].strip("'")
        fix = f"the template needs {name}; give it in user_endpoint_config"
        raise ConfigInvalid(file=file, why=f"{_line(why)}{fix if name.isidentifier() else why.message}") from None
    except Exception as why:  # noqa: BLE001 a template divides, sorts and indexes what users send: it may raise anything
        raise ConfigInvalid(file=file, why=f"{_line(why)}{type(why).__name__}: {str(why)[:200]}") from None


class _Environment(ImmutableSandboxedEnvironment):
    def __init__(self, marks: Marks, directory: Path | None) -> None:
        readable = directory is not None and os.access(directory, os.R_OK | os.X_OK)
        super().__init__(
            undefined=jinja2.StrictUndefined,
            finalize=lambda value: _emit(value, marks),
            loader=jinja2.FileSystemLoader(str(directory)) if readable else None,
            keep_trailing_newline=True,
            cache_size=0,
        )
        self.concat = lambda parts: Finished.of("".join(parts), marks)  # type: ignore[method-assign]
        self.filters |= {
            _LITERAL_FILTER: literal,
            "default": _default,
            "d": _default,
            "shell_escape": _shell_escape,
            "indent": _finished(self.filters["indent"]),
            "trim": _finished(self.filters["trim"]),
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Literals().visit(tree)
        return tree


class Finished(Literal):
    """What a macro, a block or `{% set %}...{% endset %}` wrote: emitted as it stands.

    It compares as the text it will be, values in their JSON form, as templates for the official endpoint expect.
    """

    _marks: Marks

    @classmethod
    def of(cls, text: str, marks: Marks) -> Finished:
        made = str.__new__(cls, text)
        made._marks = marks  # noqa: SLF001 its own
        return made

    def __hash__(self) -> int:
        return hash(self._filled)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._filled == str(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, part: object) -> bool:
        return isinstance(part, str) and part in self._filled

    @property
    def _filled(self) -> str:
        return self._marks.text(str(self))


class _Literals(NodeTransformer):
    """Marks the texts that stand in the template itself, so that they are told from computed ones."""

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802 (the visitor's naming)
        if not isinstance(node.value, str):
            return node
        return nodes.Filter(node, _LITERAL_FILTER, [], [], None, None, lineno=node.lineno)


class ShellWord(str):
    """Safe as one word of a shell command; inside a longer text it stands without further quotes."""

    __slots__ = ()


def _shell_escape(value: Any) -> ShellWord:
    return ShellWord(shlex.quote(str(value)))


def _default(value: Any, default_value: Any = literal(""), boolean: bool = False) -> Any:  # noqa: B008 (immutable)
    """As Jinja's; without a default the output stays empty, which YAML reads as null."""
    missing = isinstance(value, jinja2.Undefined) or (boolean and not value)
    return default_value if missing else value


def _finished(plain_filter: Callable[..., str]) -> Callable[..., str]:
    """A filter that keeps finished text finished: macros are often indented where they are used."""

    def keeping(value: Any, *args: Any, **kwargs: Any) -> str:
        made = plain_filter(value, *args, **kwargs)
        return literal(made) if isinstance(value, Literal) else made

    return keeping


def _emit(value: Any, marks: Marks) -> Any:
    if isinstance(value, (Literal, jinja2.Undefined)):  # writing an Undefined raises, as it should
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return marks.put(plain(value), bare=isinstance(value, ShellWord))


def _line(why: BaseException) -> str:
    frames: Iterable[traceback.FrameSummary] = traceback.extract_tb(why.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == _SOURCE]
    return f"line {lines[-1]}: " if lines else ""
