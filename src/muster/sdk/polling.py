"""Asks the service about tasks whose result has not come: nobody waits for ever for a message that was lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from muster.errors import MusterError, NotFound
from muster.rest.errands import aside
from muster.sdk.futures import ComputeFuture, settle
from muster.sdk.ids import text_of
from muster.sdk.outcomes import Reader, item_of_document, resolve
from muster.wire.rest import BatchStatus, BatchStatusAnswer, TaskDocument

if TYPE_CHECKING:
    from muster.rest import Rest

log = logging.getLogger(__name__)

CHUNK = 200  # tasks a request
OLD_S = 15.0  # a younger task is not asked about, except after a reconnect
LONGEST_PAUSE_S = 120.0
SETTLE_S = 0.5  # after a reconnect the queue delivers first what it still holds
WARN_EVERY_S = 60.0


def look_up(rest: Rest, task_ids: Sequence[str]) -> dict[str, TaskDocument]:
    """The documents of these tasks; a task the service does not know is absent."""
    found: dict[str, TaskDocument] = {}
    for chunk in chunks(task_ids, CHUNK):
        asked = BatchStatus(task_ids=list(chunk))
        answer = rest.call("POST", "/v2/batch_status", asked, BatchStatusAnswer, repeatable=True)
        found.update(answer.results)
    return found


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[at : at + size] for at in range(0, len(items), size))


class Poll:
    """Runs beside the reader of results, on its loop."""

    def __init__(self, rest: Rest, pending: dict[bytes, ComputeFuture], serializer: Reader) -> None:
        self._rest = rest
        self._pending = pending
        self._serializer = serializer
        self._asked = asyncio.Event()
        self._warned_at_s = 0.0

    def soon(self) -> None:
        """Messages may have been lost just now."""
        self._asked.set()

    async def run(self) -> None:
        pause_s = OLD_S
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), pause_s)
                self._asked.clear()
                await asyncio.sleep(SETTLE_S)
                oldest_s = time.monotonic()
            except TimeoutError:
                oldest_s = time.monotonic() - OLD_S
            found = await self._round(oldest_s)
            pause_s = OLD_S if found else min(LONGEST_PAUSE_S, pause_s * 1.5)

    async def _round(self, sent_before_s: float) -> int:
        """How many tasks turned out to have ended."""
        waiting = [
            future.task_id
            for future in list(self._pending.values())
            if not future.done() and future.sent_at_s is not None and future.sent_at_s <= sent_before_s
        ]
        found = 0
        for chunk in chunks(waiting, CHUNK):
            try:
                found += await aside(self._ask_about, chunk)
            except MusterError as why:
                self._warn(why)
                break
        return found

    def _ask_about(self, task_ids: Iterable[str]) -> int:
        asked = list(task_ids)
        try:
            known = look_up(self._rest, asked)
        finally:
            self._rest.close()  # the connection belongs to this errand's thread
        keys = {task_id: bytes.fromhex(task_id.replace("-", "")) for task_id in asked}
        found = 0
        for task_id, key in keys.items():
            document = known.get(task_id)
            item = item_of_document(document) if document is not None else None
            if document is not None and item is None:
                continue
            future = self._pending.pop(key, None)
            if future is None:
                continue
            found += 1
            if item is None:
                settle(future, error=NotFound(thing="task", name=text_of(key)))
            else:
                resolve(future, item, self._serializer)
        return found

    def _warn(self, why: MusterError) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_at_s >= WARN_EVERY_S:
            self._warned_at_s = now_s
            log.warning("%d tasks wait for their results, and the service does not answer: %s", len(self._pending), why)
