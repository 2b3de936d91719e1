"""The official envelope: one byte of version, then JSON with `message_type` and `data`.

Sources: the task, result and status report messages as the official 4.x clients speak them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from muster.errors import UndecodableMessage

VERSION = b"\x01"
LIMIT_BYTES = 64 * 1024 * 1024


class TaskMessage(msgspec.Struct, kw_only=True):
    """Service to user endpoint. `task_buffer` is the function's packed code followed by the packed payload."""

    task_id: str
    task_buffer: str
    container_id: str | None = None
    container: Any = None


class TaskStatus(msgspec.Struct, kw_only=True):
    """One transition; `timestamp` in nanoseconds of unix time."""

    timestamp: int
    state: str
    actor: str = "worker"


class ErrorDetails(msgspec.Struct, kw_only=True):
    """Present exactly when the task failed."""

    code: str
    user_message: str


class ResultMessage(msgspec.Struct, kw_only=True):
    """User endpoint to service, and unchanged from there to the SDK."""

    task_id: str
    data: str
    details: dict[str, Any] | None = None
    error_details: ErrorDetails | None = None
    task_statuses: list[TaskStatus] = []


class StatusReport(msgspec.Struct, kw_only=True):
    """Heartbeat of a manager or user endpoint; readers also accept the state under `ep_status_report`."""

    endpoint_id: str
    global_state: dict[str, Any] = {}
    ep_status_report: dict[str, Any] | None = None
    task_statuses: dict[str, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        return self.global_state or self.ep_status_report or {}


class _Envelope(msgspec.Struct):
    message_type: str
    data: msgspec.Raw


_TYPES: dict[str, type[TaskMessage | ResultMessage | StatusReport]] = {
    "task": TaskMessage,
    "result": ResultMessage,
    "ep_status_report": StatusReport,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _TYPES.items()}
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_ENCODER = msgspec.json.Encoder()


def encode(message: TaskMessage | ResultMessage | StatusReport) -> bytes:
    """One message, in the official envelope."""
    return VERSION + _ENCODER.encode({"message_type": _NAMES[type(message)], "data": message})


def decode(body: bytes) -> TaskMessage | ResultMessage | StatusReport:
    """The message in these bytes; UndecodableMessage says what is wrong with them."""
    if body[:1] != VERSION:
        raise UndecodableMessage(why=f"protocol version {body[:1]!r} is not {VERSION!r}")
    if len(body) > LIMIT_BYTES:
        raise UndecodableMessage(why=f"{len(body)} bytes are over the limit of {LIMIT_BYTES}")
    try:
        envelope = _ENVELOPE.decode(body[1:])
        decoder = _DECODERS.get(envelope.message_type)
        if decoder is None:
            raise UndecodableMessage(why=f"unknown message type {envelope.message_type[:60]!r}")
        return decoder.decode(envelope.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise UndecodableMessage(why=str(why)[:200]) from None
