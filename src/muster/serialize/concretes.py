"""Every strategy of the wire protocol, read and written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from muster.serialize.pickling import armour, dumps, loads, unarmour
from muster.serialize.strategy import Strategy
from muster.wire.packing import pack, unpack


class DillDataBase64(Strategy):
    """Any value; the default for data."""

    identifier = "00"
    for_code = False

    @classmethod
    def write(cls, value: Any) -> str:
        return armour(dumps(value))

    @classmethod
    def read(cls, body: str) -> Any:
        return loads(unarmour(body))


class DillCode(Strategy):
    """A callable by value, with what it refers to; the default for code. Both sides need the same Python."""

    identifier = "01"
    for_code = True

    @classmethod
    def write(cls, value: Any) -> str:
        return armour(dumps(value))

    @classmethod
    def read(cls, body: str) -> Any:
        return loads(unarmour(body))


class PickleCode(Strategy):
    """What very old clients wrote; read only."""

    identifier = "02"
    for_code = True

    @classmethod
    def read(cls, body: str) -> Any:
        return loads(unarmour(body))


class JSONData(Strategy):
    """Values that JSON has; readable by anything."""

    identifier = "11"
    for_code = False

    @classmethod
    def write(cls, value: Any) -> str:
        import json

        return json.dumps(value)

    @classmethod
    def read(cls, body: str) -> Any:
        import json

        return json.loads(body)


def _source_by_inspect(function: Callable[..., Any]) -> str:
    import inspect
    import textwrap

    return textwrap.dedent(inspect.getsource(function))


def _source_by_dill(function: Callable[..., Any]) -> str:
    import dill.source

    return str(dill.source.getsource(function, lstrip=True))


def _define(name: str, source: str) -> Any:
    """Execute the source in a namespace of its own and take what it calls `name`."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, f"<{name}>", "exec"), space)  # noqa: S102 - running the submitter's code is what this is for
    if name not in space:
        raise ValueError(f"the source defines no {name!r}")
    return space[name]


class _Source(Strategy):
    for_code = True

    @staticmethod
    def source(function: Callable[..., Any]) -> str:
        """The text that defines this function."""
        raise TypeError(f"{function!r} has no source")

    @classmethod
    def named_source(cls, value: Any) -> tuple[str, str]:
        if not hasattr(value, "__code__"):
            raise TypeError("only functions have a source")
        source = cls.source(value)
        if source.lstrip().startswith("lambda") or value.__name__ == "<lambda>":
            raise TypeError("a lambda has no name to find it by")
        return value.__name__, source


class DillCodeTextInspect(_Source):
    """(name, source), the source found by `inspect`; fits any Python version."""

    identifier = "03"
    source = staticmethod(_source_by_inspect)

    @classmethod
    def write(cls, value: Any) -> str:
        return armour(dumps(cls.named_source(value)))

    @classmethod
    def read(cls, body: str) -> Any:
        return _define(*loads(unarmour(body)))


class DillCodeSource(DillCodeTextInspect):
    """(name, source), the source found by dill; fits any Python version, works in an interactive session."""

    identifier = "04"
    source = staticmethod(_source_by_dill)


class PureSourceTextInspect(_Source):
    """`name:source`, no pickle at all; the source found by `inspect`."""

    identifier = "st"
    source = staticmethod(_source_by_inspect)

    @classmethod
    def write(cls, value: Any) -> str:
        return ":".join(cls.named_source(value))

    @classmethod
    def read(cls, body: str) -> Any:
        name, colon, source = body.partition(":")
        if not colon:
            raise ValueError("no `name:` before the source")
        return _define(name, source)


class PureSourceDill(PureSourceTextInspect):
    """`name:source`, no pickle at all; the source found by dill."""

    identifier = "sd"
    source = staticmethod(_source_by_dill)


def _each(parts: tuple[type[Strategy], ...], value: Any) -> list[str]:
    """The buffers of every part that can write this value; the reason of the last one when none can."""
    buffers, problem = [], ValueError("nothing to write with")
    for part in parts:
        try:
            buffers.append(part.serialize(value))
        except Exception as why:  # noqa: BLE001 - each part may fail in its own way; one that works is enough
            problem = ValueError(f"{part.__name__}: {why}")
    if not buffers:
        raise problem
    return buffers


def _first(buffers: list[str]) -> Any:
    """The value of the first buffer that can be read here."""
    problems = []
    for buffer in buffers:
        strategy = BY_IDENTIFIER.get(buffer.partition("\n")[0])
        if strategy is None or issubclass(strategy, (_Packed, CombinedCode)):
            problems.append(f"unknown strategy {buffer[:2]!r}")
            continue
        try:
            return strategy.deserialize(buffer)
        except Exception as why:  # noqa: BLE001 - the next one may do: that is the point of a combination
            problems.append(f"{strategy.__name__}: {type(why).__name__}: {why}")
    raise ValueError("; ".join(problems) or "no buffers")


class _Packed(Strategy):
    parts: ClassVar[tuple[type[Strategy], ...]]

    @classmethod
    def write(cls, value: Any) -> str:
        return pack(_each(cls.parts, value))

    @classmethod
    def read(cls, body: str) -> Any:
        return _first(unpack(body))


class AllDataStrategies(_Packed):
    """JSON and pickle side by side: the reader takes the first it can."""

    identifier = "13"
    for_code = False
    parts = (JSONData, DillDataBase64)


class AllCodeStrategies(_Packed):
    """Source and byte code side by side: the reader takes the first it can."""

    identifier = "12"
    for_code = True
    parts = (PureSourceTextInspect, PureSourceDill, DillCode)


class CombinedCode(Strategy):
    """The older combination: identifiers and bodies, joined by colons."""

    identifier = "10"
    for_code = True
    parts = (DillCodeSource, DillCode, DillCodeTextInspect, PureSourceDill, PureSourceTextInspect)

    @classmethod
    def write(cls, value: Any) -> str:
        return ":".join(buffer.replace("\n", "\n:", 1) for buffer in _each(cls.parts, value))

    @classmethod
    def read(cls, body: str) -> Any:
        """Base64 holds no colon, sources do: `03\\n:` and its like mark where a body ends."""
        import re

        heads = list(re.finditer(r"(?:^|(?<=:))(01|02|03|04|sd|st)\n:", body))
        ends = [head.start() - 1 for head in heads[1:]] + [len(body)]
        pairs = zip(heads, ends, strict=True)
        return _first([f"{head[1]}\n{body[head.end() : end]}" for head, end in pairs])


STRATEGIES: tuple[type[Strategy], ...] = (
    DillDataBase64,
    DillCode,
    PickleCode,
    DillCodeTextInspect,
    DillCodeSource,
    CombinedCode,
    JSONData,
    AllCodeStrategies,
    AllDataStrategies,
    PureSourceTextInspect,
    PureSourceDill,
)
BY_IDENTIFIER: dict[str, type[Strategy]] = {strategy.identifier: strategy for strategy in STRATEGIES}

# Every import path by which a peer may name a strategy. A table, so that a name from outside selects and never imports.
BY_PATH: dict[str, type[Strategy]] = {
    f"{package}.{strategy.__name__}": strategy
    for strategy in STRATEGIES
    for package in ("globus_compute_sdk.serialize.concretes", "globus_compute_sdk.serialize", "muster.serialize")
}
