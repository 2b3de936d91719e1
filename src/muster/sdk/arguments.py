"""What a caller hands over, checked where it is handed over: the traceback then ends in the caller's own line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from muster.errors import CannotSerialize, Invalid

if TYPE_CHECKING:
    from muster.serialize import Serializer


def pack_arguments(serializer: Serializer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The payload of one call; SerializationError names the argument that cannot travel."""
    try:
        return serializer.pack_arguments(args, kwargs)
    except CannotSerialize as whole:
        named = [(f"Argument {at + 1}", value) for at, value in enumerate(args)]
        named += [(f"Argument {name!r}", value) for name, value in kwargs.items()]
        for name, value in named:
            try:
                serializer.pack_arguments((value,), {})
            except CannotSerialize as why:
                what = f"{name} (a {type(value).__name__})"
                raise CannotSerialize(what=what, why=why.facts.get("why", why)) from whole
        raise


def json_text(document: Mapping[str, Any] | None, name: str) -> str | None:
    """The document as JSON, the same text for the same content; Invalid says where it is none."""
    if not document:
        return None
    try:
        fault = json_fault(document, name)
    except RecursionError:
        fault = f"{name} contains itself, or is nested too deeply"
    if fault:
        raise Invalid(why=fault)
    return msgspec.json.encode(document, order="sorted").decode()


def json_fault(value: Any, path: str) -> str | None:
    """Where and why a value cannot be JSON; None when it can."""
    if value is None or isinstance(value, (bool, str)):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else f"{path} is {value}, which has more than 64 bits"
    if isinstance(value, float):
        return None if value - value == 0 else f"{path} is {value!r}, which JSON cannot express"
    if isinstance(value, Mapping):
        keys = (None if isinstance(key, str) else f"{path} has the key {key!r}; keys must be texts" for key in value)
        inside = (json_fault(item, f"{path}[{key!r}]") for key, item in value.items())
        return next((fault for fault in (*keys, *inside) if fault), None)
    if isinstance(value, (list, tuple)):
        inside = (json_fault(item, f"{path}[{at}]") for at, item in enumerate(value))
        return next((fault for fault in inside if fault), None)
    return f"{path} is a {type(value).__name__}; only texts, numbers, booleans, None, lists and dicts can travel"


def uuid_of(value: UUID | str | None, name: str) -> UUID | None:
    """An id as one; ValueError names what was wrong."""
    if value is None or isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{name} must be a UUID such as 6d0ba55f-de15-4af2-827d-05c50c338aa7, not {value!r}") from None


def serializer_paths(serializers: Sequence[Any] | None) -> tuple[str, ...]:
    """Import paths of strategies; our classes are known everywhere by their official path."""
    from muster.serialize.concretes import STRATEGIES

    paths = []
    for item in serializers or ():
        ours = item in STRATEGIES or type(item) in STRATEGIES
        kind = item if isinstance(item, type) else type(item)
        if isinstance(item, str):
            paths.append(item)
        elif ours:
            paths.append(f"globus_compute_sdk.serialize.concretes.{kind.__name__}")
        else:
            paths.append(f"{kind.__module__}.{kind.__qualname__}")
    return tuple(paths)
