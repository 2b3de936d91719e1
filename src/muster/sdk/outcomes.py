"""A result as it travels, in its three shapes, becomes a value or an exception of a future."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from muster.errors import UndecodableMessage
from muster.sdk.errors import TaskExecutionFailed
from muster.sdk.futures import ComputeFuture, settle
from muster.sdk.ids import key_of
from muster.wire import bundle, envelope
from muster.wire.bundle import ResultItem
from muster.wire.rest import TaskDocument

log = logging.getLogger(__name__)


class Reader(Protocol):
    """What turns a serialised value back into one."""

    def deserialize(self, buffer: str) -> object: ...


def items_of(body: bytes, content_type: str | None) -> list[ResultItem]:
    """The results in one message, official or ours; none when it cannot be read: it must not come back for ever."""
    try:
        if content_type == bundle.RESULTS:
            return bundle.decode_results(body)
        message = envelope.decode(body)
        if isinstance(message, envelope.ResultMessage):
            return [_item(message)]
        log.warning("a message in a results queue is no result and was dropped: %s", type(message).__name__)
    except (UndecodableMessage, ValueError) as why:
        log.warning("a message in a results queue could not be read and was dropped: %s", why)
    return []


def _item(message: envelope.ResultMessage) -> ResultItem:
    error = message.error_details
    return ResultItem(
        task=key_of(message.task_id),
        data=message.data,
        error_code=error.code if error else None,
        error_message=error.user_message if error else None,
    )


def item_of_document(document: TaskDocument) -> ResultItem | None:
    """The result in a task document; None while the task is pending."""
    if document.status == "success" and document.result is not None:
        return ResultItem(task=key_of(document.task_id), data=document.result)
    if document.status == "failed" or document.exception is not None:
        return ResultItem(
            task=key_of(document.task_id),
            data=document.exception or "",
            error_code=document.error_code or "RemoteExecutionError",
            error_message=document.reason,
        )
    return None


def error_of(item: ResultItem, completion_t: str | None = None) -> TaskExecutionFailed | None:
    """What a failed task raises; None when it succeeded."""
    if item.error_code is None:
        return None
    return TaskExecutionFailed(item.data, completion_t or str(time.time()), item.error_code, item.error_message or "")


def resolve(future: ComputeFuture, item: ResultItem, reader: Reader) -> None:
    """End a future with what the task left behind."""
    error: BaseException | None = error_of(item)
    value: object = None
    if error is None:
        try:
            value = reader.deserialize(item.data)
        except Exception as why:  # noqa: BLE001 - unpickling runs code of the result's classes: anything may be raised
            error = why
    settle(future, value, error)
