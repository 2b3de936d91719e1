"""Runs tasks in worker processes of this machine.

Calls go to a worker in batches as large as some milliseconds of work, so a long call never has others behind it; one
that turns out long has them taken back. A worker that dies takes exactly the call with it that it was running.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

from muster.engine.contract import Deliver, Load
from muster.engine.options import CommonOptions, positive
from muster.engine.outlet import Outlet, result_of
from muster.engine.pace import Pace
from muster.engine.seat import MAX_CALLS, MAX_CHARACTERS, Call, Seat
from muster.errors import TaskError, TaskTimeout, WorkerLost
from muster.wire.bundle import ResultItem, TaskItem
from muster.worker.child import Child

_BUDGET_NS = 5e6  # work that may wait at one worker
_OVERHEAD_NS = 15e3  # of a call, besides the call
_STALL_S = 0.02
_SETTLE_S = 0.015  # between forbidding a start and looking what has started, see worker.process
_TRIES = 3
_EARLY_DEATHS = 3
_GRACE_S = 1.0
_MAX_BACKOFF_S = 30.0


class ProcessEngine:
    """A pool of processes, each a fresh interpreter in a session of its own."""

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        working_dir: str | None = None,
        run_in_sandbox: bool = False,
        allowed_serializers: list[str] | None = None,
        task_timeout_s: float | None = None,
        result_size_limit: int | None = None,
        label: str | None = None,
    ) -> None:
        self._label = label or "worker"
        self._common = CommonOptions.of(
            working_dir=working_dir,
            run_in_sandbox=run_in_sandbox,
            allowed_serializers=allowed_serializers,
            task_timeout_s=task_timeout_s,
            result_size_limit=result_size_limit,
        )
        count = positive("engine.max_workers", max_workers, len(os.sched_getaffinity(0)))
        self._seats = [Seat(number) for number in range(count)]
        self._waiting: deque[Call] = deque()
        self._pace = Pace()
        self._details: str | None = None
        self._stopped = False
        self._trouble = ""  # why the last worker could not start
        self._left = asyncio.Event()  # a worker has
        self._ticking: asyncio.TimerHandle | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    async def start(self, workdir: Path, deliver: Deliver) -> None:
        """Start every worker; returns before they are ready, so that calls can come meanwhile."""
        self._workdir = workdir / "workers"
        self._workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._common = self._common.at(workdir)
        self._outlet = Outlet(deliver)
        self._loop = asyncio.get_running_loop()
        for seat in self._seats:
            self._fill(seat)

    def submit(self, tasks: Sequence[TaskItem], code: dict[bytes, str]) -> None:
        """Queue them, and give the workers what they have room for."""
        calls = [Call(item, code[item.function]) for item in tasks]
        if self._stopped:
            self._fail(calls, WorkerLost(why="the engine was stopped"))
            return
        self._waiting.extend(calls)
        for seat in self._seats:
            if seat.child is None and seat.early_deaths >= _EARLY_DEATHS and not self._timers:
                self._fill(seat)
        self._dispatch()

    def load(self) -> Load:
        held = sum(len(seat.calls) for seat in self._seats)
        running = sum(bool(seat.calls) for seat in self._seats)
        workers = sum(seat.ready for seat in self._seats)
        figures = {
            "engine_type": "ProcessPoolEngine",
            "max_workers_per_node": len(self._seats),
            "idle_workers": workers - running,
            "scaling_enabled": False,
        }
        return Load(len(self._waiting) + held - running, running, workers, figures)

    def room(self) -> int:
        held = sum(len(seat.calls) for seat in self._seats)
        return self._pace.room(len(self._seats), len(self._waiting) + held)

    async def stop(self) -> None:
        """End every worker and what it started; calls without a result get WorkerLost."""
        if self._stopped:
            return
        self._stopped = True
        for timer in (*self._timers, self._ticking):
            if timer is not None:
                timer.cancel()
        busy = [seat for seat in self._seats if seat.child is not None and seat.calls]
        for seat in busy:
            if seat.child is not None:
                seat.child.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                while any(seat.child is not None for seat in busy):
                    self._left.clear()
                    await self._left.wait()
        children = [seat.child for seat in self._seats if seat.child is not None]
        lost = [call for seat in self._seats for call in seat.leave().values()]
        for child in children:
            child.signal(signal.SIGKILL)
        await asyncio.gather(*(asyncio.to_thread(child.close) for child in children))
        lost += self._waiting
        self._waiting.clear()
        self._fail(lost, WorkerLost(why="the engine was stopped"))
        self._outlet.flush()

    # The workers

    def _fill(self, seat: Seat) -> None:
        """Seat a new worker."""
        if self._stopped or seat.child is not None:
            return
        try:
            child = Child(self._common.task, self._workdir / f"{self._label}-{seat.number}.log")
        except OSError as why:
            self._could_not_start(seat, str(why))
            return
        seat.take(child, lambda: self._readable(seat), lambda: self._exited(seat))

    def _could_not_start(self, seat: Seat, why: str) -> None:
        """Try again ever more slowly; what waits fails when no worker is left that could run it."""
        seat.early_deaths += 1
        self._trouble = why
        hopeless = all(other.child is None and other.early_deaths >= _EARLY_DEATHS for other in self._seats)
        if hopeless:
            calls = list(self._waiting)
            self._waiting.clear()
            self._fail(calls, WorkerLost(why=f"no worker can start: {why}"))
            if not calls and seat.early_deaths > _EARLY_DEATHS:
                return  # nothing to do and no way to do it: the next submit tries again
        self._later(min(_MAX_BACKOFF_S, 0.1 * 2 ** min(seat.early_deaths, 10)), seat)

    def _later(self, delay_s: float, seat: Seat) -> None:
        def again() -> None:
            self._timers.discard(timer)
            self._fill(seat)

        timer = self._loop.call_later(delay_s, again)
        self._timers.add(timer)

    def _readable(self, seat: Seat) -> None:
        messages = seat.read()
        if messages is None:
            self._exited(seat)
            return
        results = self._take(seat, messages)
        self._outlet.put_now(results)
        self._dispatch()

    def _take(self, seat: Seat, messages: list[Any]) -> list[ResultItem]:
        results: list[ResultItem] = []
        for message in messages:
            if isinstance(message, str):
                self._details, seat.ready, seat.early_deaths = message, True, 0
                continue
            number, ran = message
            call = seat.calls.pop(number, None)
            seat.stalled = False
            if call is None:
                continue  # it was taken back before it started, and the worker says so
            item = call.item
            seat.expected_ns -= self._expect(item)
            if ran is None:
                self._waiting.appendleft(call)
                continue
            self._pace.saw(item.function, ran[4] - ran[3])
            results.append(result_of(item.task, ran, self._details))
        if not seat.calls:
            seat.expected_ns = 0.0
        return results

    def _exited(self, seat: Seat) -> None:
        """Its worker is dead, or as good as: one call is lost, the others go back, somebody else sits down."""
        child = seat.child
        if child is None:
            return
        self._outlet.put_now(self._take(seat, seat.drain()))
        running, was_ready, overdue = child.running, seat.ready, seat.overdue
        calls = seat.leave()
        words = child.last_words()
        child.close()
        self._left.set()
        cause = "the engine was stopped" if self._stopped else child.cause()
        back: list[Call] = []
        for number, call in calls.items():
            if number > running:
                call.tries += 1
                back.append(call)
            elif number == overdue:
                self._fail([call], TaskTimeout(limit_s=self._common.timeout_s))
            else:
                self._fail([call], WorkerLost(why=cause), words)
        self._fail([call for call in back if call.tries >= _TRIES], WorkerLost(why=cause), words)
        self._waiting.extendleft(reversed([call for call in back if call.tries < _TRIES]))
        if was_ready:
            self._fill(seat)
        elif not self._stopped:
            self._could_not_start(seat, f"{child.cause()}. It said: {words[-500:] or 'nothing'}")
        self._dispatch()

    # The calls

    def _dispatch(self) -> None:
        """Give what waits to whoever has room, in equal shares."""
        if not self._waiting or self._stopped:
            return
        open_seats = [seat for seat in self._seats if seat.ready and not seat.stalled and self._has_room(seat)]
        for at, seat in enumerate(open_seats):
            share = ceil(len(self._waiting) / (len(open_seats) - at))
            calls = self._choose(seat, min(share, MAX_CALLS - len(seat.calls)))
            if calls:
                seat.give(calls)
        self._tick_later()

    def _has_room(self, seat: Seat) -> bool:
        return not seat.calls or (len(seat.calls) <= MAX_CALLS // 2 and seat.expected_ns < _BUDGET_NS / 2)

    def _choose(self, seat: Seat, most: int) -> list[Call]:
        chosen: list[Call] = []
        characters = 0
        waiting = self._waiting
        while waiting and len(chosen) < most and characters < MAX_CHARACTERS:
            expected = self._expect(waiting[0].item)
            if (chosen or seat.calls) and seat.expected_ns + expected > _BUDGET_NS:
                break
            call = waiting.popleft()
            characters += len(call.item.payload)
            seat.expected_ns += expected
            chosen.append(call)
        return chosen

    def _expect(self, item: TaskItem) -> float:
        return self._pace.expect_ns(item.function) + _OVERHEAD_NS

    def _fail(self, calls: list[Call], why: TaskError, words: str = "") -> None:
        text = why.message()
        data = f"{text}\nIts last words:\n{words}" if words else text
        self._outlet.put([ResultItem(c.item.task, data, why.code, text, details=self._details) for c in calls])

    def _tick_later(self) -> None:
        """Watch the workers while there is something to watch for."""
        if self._ticking is not None:
            return
        if any(len(seat.calls) > 1 for seat in self._seats):
            self._ticking = self._loop.call_later(_STALL_S, self._tick)
        elif self._common.timeout_s is not None and any(seat.calls for seat in self._seats):
            self._ticking = self._loop.call_later(min(0.25, self._common.timeout_s / 4), self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now_ns = time.monotonic_ns()
        limit_ns = (self._common.timeout_s or float("inf")) * 1e9
        for seat in self._seats:
            if seat.child is None or not seat.calls or not (started_ns := seat.child.started_ns):
                continue
            age_ns = now_ns - started_ns
            if age_ns > limit_ns and seat.overdue is None and seat.child.running in seat.calls:
                seat.overdue = seat.child.running
                seat.child.signal(signal.SIGKILL)
            elif age_ns > _STALL_S * 1e9 and len(seat.calls) > 1 and not seat.stalled:
                self._take_back(seat, seat.child)
        self._tick_later()

    def _take_back(self, seat: Seat, child: Child) -> None:
        """The call it runs is long: let others run what is queued behind it."""
        seat.stalled = True
        last = max(seat.calls)
        child.take_back(last)

        def collect() -> None:
            self._timers.discard(timer)
            if seat.child is not child or self._stopped:
                return
            running = child.running
            numbers = [number for number in seat.calls if running < number <= last]
            self._waiting.extendleft(seat.calls.pop(number) for number in reversed(numbers))
            seat.expected_ns = sum(self._expect(call.item) for call in seat.calls.values())
            self._dispatch()

        timer = self._loop.call_later(_SETTLE_S, collect)
        self._timers.add(timer)
