"""Bytes of frames: the frequent ones by hand, the rare ones through pamqp."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from pamqp import commands
from pamqp import frame as pamqp_frame
from pamqp.base import Frame

from muster.broker.faults import ConnectionFault
from muster.broker.message import Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
OVERHEAD = 8
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

PUBLISH = b"\x00\x3c\x00\x28"
ACK = b"\x00\x3c\x00\x50"

HEAD = struct.Struct(">BHI")
_ACK = struct.Struct(">QB")
_ACK_FRAME = struct.Struct(">BHIHHQBB")
_TAG = struct.Struct(">QB")
HEADER_START = struct.Struct(">HHQ")
_BASIC = 60
_USER_ID = 0x0010
_REMEMBERED_BYTES = 256  # most messages of one kind have the same properties


def command(channel: int, method: Frame) -> bytes:
    """One method frame."""
    return pamqp_frame.marshal(method, channel)


def read_command(payload: bytes) -> Frame:
    """The method of a frame's payload; 502 for bytes that are none."""
    whole = HEAD.pack(METHOD, 0, len(payload)) + payload + FRAME_END
    try:
        method = pamqp_frame.unmarshal(whole)[2]
    except Exception as why:  # bytes from anybody: whatever the decoder stumbles over is the peer's mistake
        raise ConnectionFault(502, f"SYNTAX_ERROR - {type(why).__name__}") from why
    if not isinstance(method, Frame):
        raise ConnectionFault(502, "SYNTAX_ERROR - no method")
    return method


@dataclass(frozen=True, slots=True)
class Publish:
    """The arguments of basic.publish."""

    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool


def read_publish(payload: bytes) -> Publish:
    """basic.publish, decoded by hand: it is half of all methods."""
    try:
        end = 7 + payload[6]
        exchange = payload[7:end].decode()
        start = end + 1
        end = start + payload[end]
        routing_key = payload[start:end].decode()
        bits = payload[end]
    except (IndexError, UnicodeDecodeError) as why:
        raise ConnectionFault(502, "SYNTAX_ERROR - basic.publish") from why
    return Publish(exchange, routing_key, bool(bits & 1), bool(bits & 2))


def read_ack(payload: bytes) -> tuple[int, bool]:
    """Delivery tag and `multiple` of a basic.ack."""
    try:
        tag, bits = _ACK.unpack_from(payload, 4)
    except struct.error as why:
        raise ConnectionFault(502, "SYNTAX_ERROR - basic.ack") from why
    return tag, bool(bits & 1)


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    return _ACK_FRAME.pack(METHOD, channel, 13, _BASIC, 80, tag, multiple, 0xCE)


def short(text: str) -> bytes:
    """A short string; the texts here are bounded by those who made them."""
    raw = text.encode()[:255]
    return bytes((len(raw),)) + raw


def deliver(channel: int, consumer: bytes, tag: int, redelivered: bool, message: Message) -> bytes:
    """basic.deliver; `consumer` is its tag as a short string."""
    return _method(channel, b"\x00\x3c\x00\x3c" + consumer + _TAG.pack(tag, redelivered) + message.route)


def get_ok(channel: int, tag: int, redelivered: bool, message: Message, left: int) -> bytes:
    payload = b"\x00\x3c\x00\x47" + _TAG.pack(tag, redelivered) + message.route + left.to_bytes(4, "big")
    return _method(channel, payload)


def declare_ok(channel: int, queue: str, messages: int, consumers: int) -> bytes:
    """By hand, for pamqp refuses names that AMQP and RabbitMQ allow."""
    counts = messages.to_bytes(4, "big") + consumers.to_bytes(4, "big")
    return _method(channel, b"\x00\x32\x00\x0b" + short(queue) + counts)


def no_route(channel: int, message: Message) -> bytes:
    """basic.return for a message that reached no queue."""
    return _method(channel, b"\x00\x3c\x00\x32\x01\x38\x08NO_ROUTE" + message.route)


def _method(channel: int, payload: bytes) -> bytes:
    return HEAD.pack(METHOD, channel, len(payload)) + payload + FRAME_END


def content(channel: int, message: Message, frame_bytes: int) -> list[bytes | memoryview]:
    """Header and body frames of a message, its header bytes unchanged."""
    header, body = message.header, message.body
    parts: list[bytes | memoryview] = [HEAD.pack(HEADER, channel, len(header)), header, FRAME_END]
    room = frame_bytes - OVERHEAD
    if not body:
        return parts
    if len(body) <= room:
        parts += (HEAD.pack(BODY, channel, len(body)), body, FRAME_END)
        return parts
    view = memoryview(body)
    for start in range(0, len(body), room):
        piece = view[start : start + room]
        parts += (HEAD.pack(BODY, channel, len(piece)), piece, FRAME_END)
    return parts


def body_size(header: bytes) -> int:
    """How long the body will be; 501 for a content header that is none."""
    if len(header) < 14:
        raise ConnectionFault(501, "FRAME_ERROR - short content header")
    class_id, _, size = HEADER_START.unpack_from(header)
    if class_id != _BASIC:
        raise ConnectionFault(505, "UNEXPECTED_FRAME - content header of another class")
    return int(size)


def claims_user_id(header: bytes) -> str | None:
    """The user id property, when the publisher set one."""
    if not header[13] & _USER_ID:
        return None
    value = properties(header[12:]).user_id
    return "" if value is None else value


def header_of(properties_: commands.Basic.Properties, body_bytes: int) -> bytes:
    """A content header for properties of our own."""
    return HEADER_START.pack(_BASIC, 0, body_bytes) + properties_.marshal()


def properties(raw: bytes) -> commands.Basic.Properties:
    """Properties from their bytes; empty ones when a publisher sent nonsense, for readers must not fall over it."""
    return _remembered(raw) if len(raw) <= _REMEMBERED_BYTES else _decoded(raw)


@lru_cache(maxsize=4096)
def _remembered(raw: bytes) -> commands.Basic.Properties:
    return _decoded(raw)


def _decoded(raw: bytes) -> commands.Basic.Properties:
    found = commands.Basic.Properties()
    try:
        found.unmarshal(int.from_bytes(raw[:2], "big"), raw[2:])
    except Exception:  # noqa: BLE001 - bytes from anybody, see above
        return commands.Basic.Properties()
    return found
