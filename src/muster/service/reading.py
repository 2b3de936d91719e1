"""Reading what callers send: bounded in size and depth, and every refusal names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from starlette.requests import ClientDisconnect, Request

from muster.errors import Invalid, TooLarge

T = TypeVar("T", bound=msgspec.Struct)


async def body_of(request: Request, limit_bytes: int) -> bytes:
    """The whole body, or TooLarge before the rest of it is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise TooLarge(what="The request body", size_bytes=int(declared), limit_bytes=limit_bytes)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit_bytes:
                raise TooLarge(what="The request body", size_bytes=size, limit_bytes=limit_bytes)
            parts.append(part)
    except ClientDisconnect:
        raise Invalid(why="the body ended early") from None
    return b"".join(parts)


def document(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as this document; Invalid names the field that is wrong."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise Invalid(why=plain(str(why))) from None


def plain(why: str) -> str:
    """`Expected `str`, got `int` - at `$.tasks``, with the field first."""
    text, separator, field = why.partition(" - at `$")
    return f"{field.rstrip('`').lstrip('.') or 'body'}: {text}"[:500] if separator else why[:500]


def uuid_of(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(why=f"{field}: {text[:60]!r} is not a UUID") from None


def bounded_json(value: Mapping[str, Any], field: str, limit_bytes: int, limit_depth: int) -> str:
    """The value as JSON text, when it is neither too deep nor too large."""
    if depth(value, limit_depth + 1) > limit_depth:
        raise Invalid(why=f"{field}: nested deeper than {limit_depth} levels")
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > limit_bytes:
        raise Invalid(why=f"{field}: {len(text)} bytes are over the limit of {limit_bytes}")
    return text


def depth(value: Any, give_up_at: int) -> int:
    """How deep lists and objects nest; stops looking at `give_up_at`."""
    if give_up_at <= 0 or not isinstance(value, dict | list):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max((depth(item, give_up_at - 1) for item in inside), default=0)
