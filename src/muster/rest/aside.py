"""Blocking calls from async code, on threads that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """Its result. Other than with `asyncio.to_thread`, a loop that ends does not wait for a call under way: a stop
    must not last as long as the patience with a service that is away.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = work()
        except Exception as why:  # noqa: BLE001 - the edge of the thread: it is raised where the result is awaited
            _hand_over(loop, done, lambda error=why: done.set_exception(error))
        else:
            _hand_over(loop, done, lambda: done.set_result(value))

    threading.Thread(target=run, name="rest", daemon=True).start()
    return await done


def _hand_over(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], settle: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(lambda: None if done.done() else settle())
