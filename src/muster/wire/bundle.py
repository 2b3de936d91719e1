"""Bundles: many tasks, or many results, in one AMQP message.

Used on a hop only where both sides announced it; the official clients never see one. msgpack array-structs: a
tenth of JSON's cost per item. A bundle never holds more than one hop had queued anyway, so it delays nothing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from muster.errors import UndecodableMessage

TASKS = "application/vnd.muster.tasks+msgpack"  # AMQP content_type
RESULTS = "application/vnd.muster.results+msgpack"
VERSION = 1  # announced as `"bundles": 1` by whoever reads them
MAX_ITEMS = 1000
MAX_BYTES = 4 * 1024 * 1024  # a sender starts a new bundle beyond either


class TaskItem(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call. `payload` is the packed [args, kwargs]; the code stands once in the bundle."""

    task: bytes  # 16 bytes
    function: bytes  # 16 bytes
    payload: str
    resources: str | None = None
    serializers: tuple[str, ...] = ()


class ResultItem(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How one call ended. Failed exactly when `error_code` is set; `data` is then the traceback text."""

    task: bytes  # 16 bytes
    data: str
    error_code: str | None = None
    error_message: str | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    details: str | None = None  # JSON; None: as the item before it


class TaskBundle(msgspec.Struct, array_like=True, gc=False):
    """`code` maps function id (16 bytes) to its packed buffer, for every function named in `items`."""

    code: dict[bytes, str]
    items: Annotated[list[TaskItem], msgspec.Meta(max_length=MAX_ITEMS)]


class ResultBundle(msgspec.Struct, array_like=True, gc=False):
    """Results in the order they came."""

    items: Annotated[list[ResultItem], msgspec.Meta(max_length=MAX_ITEMS)]  # a small message can name millions


_ENCODER = msgspec.msgpack.Encoder()
_TASKS = msgspec.msgpack.Decoder(TaskBundle)
_RESULTS = msgspec.msgpack.Decoder(ResultBundle)


def encode_tasks(bundle: TaskBundle) -> bytes:
    return _ENCODER.encode(bundle)


def encode_results(items: list[ResultItem]) -> bytes:
    return _ENCODER.encode(ResultBundle(items))


def decode_tasks(body: bytes) -> TaskBundle:
    """The tasks in these bytes; UndecodableMessage when they are none, or name code that is not there."""
    try:
        bundle = _TASKS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise UndecodableMessage(why=str(why)[:200]) from None
    for item in bundle.items:
        if len(item.task) != 16 or item.function not in bundle.code:
            raise UndecodableMessage(why="a task without id or code")
    return bundle


def decode_results(body: bytes) -> list[ResultItem]:
    try:
        items = _RESULTS.decode(body).items
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise UndecodableMessage(why=str(why)[:200]) from None
    if any(len(item.task) != 16 for item in items):
        raise UndecodableMessage(why="a result without a task id")
    return items
