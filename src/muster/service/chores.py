"""Background work of the service: nothing of it dies silently, all of it ends with the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Chores:
    """The running background tasks; each failure is logged under its name."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: work.close())  # it may be cancelled before its first step
        return task

    def every(self, period_s: float, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Again and again; a failed round is logged and the next one still comes."""
        return self.start(self._rounds(period_s, work, name), name)

    async def _rounds(self, period_s: float, work: Callable[[], Awaitable[None]], name: str) -> None:
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
            except Exception:  # the edge of a background loop: one bad round must not end all later ones
                log.exception("%s: this round failed", name)

    async def _guard(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:  # the edge of a background task: nobody awaits it, so it is told here
            log.exception("%s: failed", name)

    async def close(self) -> None:
        """Cancel all, and wait until they are gone."""
        for task in list(self._running):
            task.cancel()
        while self._running:
            await asyncio.wait(self._running)
