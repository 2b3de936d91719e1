"""Runs tasks in this very process. For a laptop, a test, or functions that only wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from muster.engine.contract import Deliver, Load
from muster.engine.options import CommonOptions, positive
from muster.engine.outlet import Outlet, result_of
from muster.engine.pace import Pace
from muster.errors import TaskError, TaskTimeout, WorkerLost
from muster.wire.bundle import ResultItem, TaskItem
from muster.worker.task import Runner, details

_WATCH_S = 0.25


@dataclass(slots=True)
class _Call:
    item: TaskItem
    code: str
    started_s: float | None = None


class ThreadEngine:
    """A pool of threads. A call that is over its time is answered for; its thread cannot be ended, only replaced."""

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        allowed_serializers: list[str] | None = None,
        task_timeout_s: float | None = None,
        result_size_limit: int | None = None,
        label: str | None = None,
    ) -> None:
        self._workers = positive("engine.max_workers", max_workers, 4)
        self._label = label or "task"
        self._common = CommonOptions.of(
            working_dir=None,
            run_in_sandbox=False,
            allowed_serializers=allowed_serializers,
            task_timeout_s=task_timeout_s,
            result_size_limit=result_size_limit,
        )
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._open: dict[int, _Call] = {}  # by identity of the call: two tasks may carry the same id
        self._lock = threading.Lock()
        self._pace = Pace()
        self._stopped = False
        self._watch: asyncio.Task[None] | None = None

    async def start(self, workdir: Path, deliver: Deliver) -> None:  # noqa: ARG002 - threads leave nothing on disk
        """Bring the threads up."""
        self._outlet = Outlet(deliver)
        self._details = details()
        for _ in range(self._workers):
            self._start_thread()
        if self._common.timeout_s is not None:
            self._watch = asyncio.create_task(self._end_overdue(self._common.timeout_s))

    def submit(self, tasks: Sequence[TaskItem], code: dict[bytes, str]) -> None:
        """Queue them; a stopped engine answers at once."""
        calls = [_Call(item, code[item.function]) for item in tasks]
        with self._lock:
            if not self._stopped:
                self._open.update((id(call), call) for call in calls)
        if self._stopped:
            self._outlet.put([_failed(call.item, WorkerLost(why="the engine was stopped")) for call in calls])
            return
        for call in calls:
            self._queue.put(call)

    def load(self) -> Load:
        with self._lock:
            running = sum(call.started_s is not None for call in self._open.values())
            waiting = len(self._open) - running
        figures = {"engine_type": "ThreadPoolEngine", "max_workers_per_node": self._workers, "scaling_enabled": False}
        return Load(waiting, running, self._workers, figures)

    def room(self) -> int:
        return self._pace.room(self._workers, len(self._open))

    async def stop(self) -> None:
        """Answer for every call that has not ended. Threads inside a call end with the process."""
        with self._lock:
            self._stopped = True
            left, self._open = list(self._open.values()), {}
        if self._watch is not None:
            self._watch.cancel()
        for _ in range(self._workers):
            self._queue.put(None)
        self._outlet.put([_failed(call.item, WorkerLost(why="the engine was stopped")) for call in left])
        self._outlet.flush()

    def _start_thread(self) -> None:
        # A daemon: a call that never returns must not keep the endpoint from exiting.
        threading.Thread(target=self._work, name=self._label, daemon=True).start()

    def _work(self) -> None:
        runner = Runner(self._common.task, exclusive=False)
        while (call := self._queue.get()) is not None:
            call.started_s = time.monotonic()
            if id(call) not in self._open:
                continue
            ran = runner.run(call.item.task, call.code, call.item.payload, call.item.serializers)
            if not self._close(call):
                return  # it was answered for as overdue, and another thread took this one's place
            self._pace.saw(call.item.function, ran.ended_ns - ran.started_ns)
            self._outlet.put([result_of(call.item.task, ran, self._details)])

    def _close(self, call: _Call) -> bool:
        """Whether this caller is the one who answers for the call."""
        with self._lock:
            return self._open.pop(id(call), None) is not None

    async def _end_overdue(self, limit_s: float) -> None:
        while True:
            await asyncio.sleep(min(_WATCH_S, limit_s / 4))
            latest = time.monotonic() - limit_s
            with self._lock:
                started = [call for call in self._open.values() if call.started_s is not None]
            for call in started:
                if call.started_s is not None and call.started_s < latest and self._close(call):
                    self._start_thread()
                    self._outlet.put([_failed(call.item, TaskTimeout(limit_s=limit_s))])


def _failed(item: TaskItem, why: TaskError) -> ResultItem:
    return ResultItem(item.task, why.message(), why.code, why.message())
