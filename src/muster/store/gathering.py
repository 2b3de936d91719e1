"""Group commit: calls that arrive while one is being written go out together in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from muster.errors import Refusal

Call = TypeVar("Call")
Answer = TypeVar("Answer")


class Gathering(Generic[Call, Answer]):
    """Hands whole lists of calls to `write`, without a timer: an idle store takes a single call at once.

    A refusal of a list is the fault of one call in it, so each is then tried alone.
    """

    def __init__(
        self,
        write: Callable[[list[Call]], Awaitable[Sequence[Answer]]],
        weight: Callable[[Call], int],
        *,
        lanes: int = 2,
        limit: int = 4096,
    ) -> None:
        self._write = write
        self._weight = weight
        self._lanes = lanes  # two: the next list is ready when the writer comes back
        self._limit = limit
        self._waiting: deque[tuple[Call, asyncio.Future[Answer]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, call: Call) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if len(self._running) < self._lanes:
            lane = asyncio.create_task(self._lane())
            self._running.add(lane)
            lane.add_done_callback(self._running.discard)
        return await future

    async def drain(self) -> None:
        """Return when everything asked for so far was written or refused."""
        while self._running:
            await asyncio.wait(self._running)

    async def _lane(self) -> None:
        while self._waiting:
            await self._answer(self._take())

    def _take(self) -> list[tuple[Call, asyncio.Future[Answer]]]:
        taken = [self._waiting.popleft()]
        total = self._weight(taken[0][0])
        while self._waiting and total + self._weight(self._waiting[0][0]) <= self._limit:
            taken.append(self._waiting.popleft())
            total += self._weight(taken[-1][0])
        return taken

    async def _answer(self, batch: list[tuple[Call, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._write([call for call, _ in batch])
        except asyncio.CancelledError:  # the loop is being shut down
            for _, future in batch:
                future.cancel()
            raise
        except Exception as why:  # noqa: BLE001 - whatever it is, it is raised in the callers
            if isinstance(why, Refusal) and len(batch) > 1:
                for one in batch:
                    await self._answer([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(why)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
