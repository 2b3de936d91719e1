"""Hands results to the endpoint on its event loop, in batches that form by themselves."""

from __future__ import annotations

import asyncio
from threading import Lock

from muster.engine.contract import Deliver
from muster.wire.bundle import ResultItem


def result_of(task: bytes, ran: tuple[str, str | None, str | None, int, int], details: str | None) -> ResultItem:
    """What a worker says about a call, as the message for the service."""
    data, code, message, started_ns, ended_ns = ran
    return ResultItem(task, data, code, message, started_ns, ended_ns, details)


class Outlet:
    """Any thread may put; `deliver` is called on the loop with all that was put since its last turn."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._waiting: list[ResultItem] = []

    def put(self, items: list[ResultItem]) -> None:
        """From any thread; silent once the loop is closed, when nobody is left to be told."""
        with self._lock:
            first = not self._waiting
            self._waiting += items
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.flush)

    def put_now(self, items: list[ResultItem]) -> None:
        """On the loop: these and everything that waits, without another turn of it."""
        with self._lock:
            self._waiting += items
        self.flush()

    def flush(self) -> None:
        """On the loop: everything that waits, now."""
        with self._lock:
            items, self._waiting = self._waiting, []
        if items:
            self._deliver(items)
