"""Futures of tasks: those of `concurrent.futures`, with an id, a state to ask for, and `await`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from muster.sdk.ids import text_of


class ComputeFuture(Future[Any]):
    """One task. Pending until it is sent; after that it cannot be cancelled from here, and `running()` is true."""

    def __init__(self, key: bytes, ask: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self.key = key
        self.sent_at_s: float | None = None  # monotonic; the service has it
        self._ask = ask

    @property
    def task_id(self) -> str:
        """Known from the start: the id is made here."""
        return text_of(self.key)

    def status(self) -> str:
        """Where the task is, as the service says: `received`, `waiting-for-launch`, `running`, `success`, …"""
        if self.cancelled():
            return "cancelled"
        if self.sent_at_s is None and not self.done():
            return "not sent yet"
        if self.done() or self._ask is None:
            return "failed" if self.done() and self.exception() else "success" if self.done() else "unknown"
        return self._ask(self.task_id)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        return f"<ComputeFuture {self.task_id} {self._state.lower()}>"


def settle(future: ComputeFuture, value: object = None, error: BaseException | None = None) -> None:
    """End it, unless it has ended already: results may come twice, and a shutdown may have been first."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except InvalidStateError:
        return


def abandon(future: ComputeFuture) -> None:
    """End it without an outcome: nobody here will wait for the result any more."""
    if not future.cancel():
        settle(future, error=CancelledError(f"task {future.task_id} was given up here; it may still run"))
