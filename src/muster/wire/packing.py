"""Packed buffers: `LENGTH\\nBUFFER`, repeated. The length counts code points, not bytes."""

from __future__ import annotations

from collections.abc import Iterable

from muster.errors import UndecodableMessage


def pack(buffers: Iterable[str]) -> str:
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def unpack(packed: str) -> list[str]:
    """The buffers in order; UndecodableMessage when a length is missing, wrong or beyond the end."""
    buffers, at = [], 0
    while at < len(packed):
        end = packed.find("\n", at, at + 20)
        digits = packed[at:end]
        if end < 0 or not (digits.isascii() and digits.isdigit()):
            raise UndecodableMessage(why=f"no buffer length at position {at}")
        start, at = end + 1, end + 1 + int(digits)
        if at > len(packed):
            raise UndecodableMessage(why=f"a buffer of {digits} characters ends beyond the text")
        buffers.append(packed[start:at])
    return buffers
