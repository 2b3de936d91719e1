"""Chooses strategies: what SDK and worker call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from muster.errors import CannotDeserialize, CannotSerialize, ConfigInvalid, NotPermitted, UndecodableMessage
from muster.serialize.concretes import BY_IDENTIFIER, BY_PATH, STRATEGIES, DillCode, DillDataBase64
from muster.serialize.strategy import Strategy
from muster.wire.packing import pack, unpack

_ANY_CODE, _ANY_DATA = "globus_compute_sdk.*Code", "globus_compute_sdk.*Data"
_CACHED_FUNCTIONS = 256
_MAX_CACHED_CHARACTERS = 1_000_000


def allowed(names: Iterable[str]) -> frozenset[str]:
    """The identifiers a site's `allowed_serializers` lets in; ConfigInvalid for a name that is none."""
    identifiers: set[str] = set()
    for name in names:
        if name in (_ANY_CODE, _ANY_DATA):
            identifiers.update(s.identifier for s in STRATEGIES if s.for_code is (name == _ANY_CODE))
        elif name in BY_PATH:
            identifiers.add(BY_PATH[name].identifier)
        else:
            known = ", ".join([_ANY_CODE, _ANY_DATA, *sorted(p for p in BY_PATH if ".concretes." in p)])
            raise ConfigInvalid(file="engine.allowed_serializers", why=f"{name!r} is no serializer; known are {known}")
    if {BY_IDENTIFIER[i].for_code for i in identifiers} != {True, False}:
        raise ConfigInvalid(file="engine.allowed_serializers", why="needs at least one for code and one for data")
    return frozenset(identifiers)


def named(path: str) -> type[Strategy]:
    """The strategy of an import path, from the table; CannotSerialize when it is not in there."""
    try:
        return BY_PATH[path]
    except KeyError:
        raise CannotSerialize(what="The result", why=f"there is no serializer {path[:200]!r}") from None


class Serializer:
    """Text from values and back. Functions are remembered by their content, on both sides."""

    def __init__(
        self,
        code: type[Strategy] = DillCode,
        data: type[Strategy] = DillDataBase64,
        *,
        allowed_identifiers: frozenset[str] | None = None,
    ) -> None:
        if not code.for_code or data.for_code:
            raise CannotSerialize(what="Anything", why=f"{code.__name__} is not for code, or {data.__name__} for data")
        self.code = code
        self.data = data
        self._allowed = allowed_identifiers
        self._functions: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()

    def serialize(self, value: Any) -> str:
        """A buffer: by the code strategy for what can be called, by the data strategy for all else."""
        strategy = self.code if callable(value) else self.data
        return _write(strategy, value)

    def serialize_by(self, value: Any, paths: Sequence[str]) -> str:
        """A buffer by the first of these strategies that works; as `serialize` when none is named."""
        if not paths:
            return self.serialize(value)
        problems = []
        for path in paths:
            try:
                return _write(named(path), value)
            except CannotSerialize as why:
                problems.append(f"{path.rpartition('.')[2]}: {why.facts.get('why')}")
        raise CannotSerialize(what=_kind(value), why="; ".join(problems))

    def deserialize(self, buffer: str) -> Any:
        """The value of a buffer; NotPermitted when the site does not allow its strategy, else CannotDeserialize."""
        identifier, newline, body = buffer.partition("\n")
        strategy = BY_IDENTIFIER.get(identifier)
        if strategy is None or not newline:
            raise CannotDeserialize(why=f"it starts with {identifier[:12]!r}, which is no known serializer")
        if self._allowed is not None and identifier not in self._allowed:
            names = ", ".join(BY_IDENTIFIER[i].__name__ for i in sorted(self._allowed))
            raise NotPermitted(why=f"this endpoint does not read {strategy.__name__}; it reads {names}")
        try:
            return strategy.read(body)
        except Exception as why:
            raise CannotDeserialize(why=f"{type(why).__name__}: {_text(why)}") from why

    def pack_function(self, function: Any) -> str:
        """The packed buffer of a function, as it is registered."""
        return pack([_write(self.code, function)])

    def pack_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The packed payload of one call."""
        return pack([_write(self.data, tuple(args)), _write(self.data, dict(kwargs))])

    def unpack_function(self, packed: str) -> Any:
        """The function in its packed buffer; the same text gives the same object while it is remembered."""
        with self._lock:
            if packed in self._functions:
                self._functions.move_to_end(packed)
                return self._functions[packed]
        function = self.deserialize(_parts(packed, 1)[0])
        if not callable(function):
            raise CannotDeserialize(why=f"the function is {_kind(function)}, which cannot be called")
        if len(packed) <= _MAX_CACHED_CHARACTERS:
            with self._lock:
                self._functions[packed] = function
                if len(self._functions) > _CACHED_FUNCTIONS:
                    self._functions.popitem(last=False)
        return function

    def unpack_arguments(self, packed: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of a packed payload."""
        args, kwargs = (self.deserialize(buffer) for buffer in _parts(packed, 2))
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            raise CannotDeserialize(why="the arguments are no sequence and mapping")
        return tuple(args), kwargs


def _parts(packed: str, count: int) -> list[str]:
    try:
        buffers = unpack(packed)
    except UndecodableMessage as why:
        raise CannotDeserialize(why=why.message()) from None
    if len(buffers) != count:
        raise CannotDeserialize(why=f"{len(buffers)} buffers where {count} were expected")
    return buffers


def _write(strategy: type[Strategy], value: Any) -> str:
    try:
        return strategy.serialize(value)
    except Exception as why:
        raise CannotSerialize(what=_kind(value), why=f"{type(why).__name__}: {_text(why)}") from why


def _kind(value: Any) -> str:
    return f"A value of type {type(value).__module__}.{type(value).__qualname__}"


def _text(why: BaseException) -> str:
    try:
        return str(why)[:1000]
    except Exception:  # noqa: BLE001 - the user's own exception may not even print
        return "(its text cannot be made)"
