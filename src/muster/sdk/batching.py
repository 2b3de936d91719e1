"""What is waiting to be sent, by destination. A POST takes what queued up while the last one was in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from muster.sdk.futures import ComputeFuture

DEFAULT_TASKS = 1000
LIMIT_BATCH_BYTES = 4 * 1024 * 1024  # a POST beyond this keeps the others waiting without need


@dataclass(frozen=True, slots=True)
class Lane:
    """What all tasks of one POST share. Texts, so that it is a dictionary key; JSON where it is a document."""

    group: str
    endpoint: str
    resources: str | None = None
    config: str | None = None
    serializers: tuple[str, ...] = ()


@dataclass(slots=True)
class Code:
    """A function on its way to the service; `id` is set once it is registered."""

    id: str | None = None
    register: Callable[[], str] | None = None


@dataclass(slots=True)
class Call:
    """One task before it is sent."""

    future: ComputeFuture
    code: Code
    payload: str


class Outbox:
    """Calls in, batches out; lanes take turns, and the order within a lane is kept."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Call]] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, lane: Lane, call: Call) -> bool:
        """False when it is closed: nothing that was put is ever forgotten."""
        with self._changed:
            if self._closed:
                return False
            queue = self._lanes.get(lane)
            if queue is None:
                queue = self._lanes[lane] = deque()
                self._changed.notify()
            queue.append(call)
            return True

    def take(self, limit_tasks: int, limit_bytes: int = LIMIT_BATCH_BYTES) -> tuple[Lane, list[Call]] | None:
        """The next batch, waiting for one; None once it is closed and empty."""
        with self._changed:
            while not self._lanes:
                if self._closed:
                    return None
                self._changed.wait()
            lane = next(iter(self._lanes))
            queue = self._lanes.pop(lane)
            calls, size = [queue.popleft()], 0
            size = len(calls[0].payload)
            while queue and len(calls) < limit_tasks and size + len(queue[0].payload) <= limit_bytes:
                size += len(queue[0].payload)
                calls.append(queue.popleft())
            if queue:
                self._lanes[lane] = queue  # at the end: the other lanes first
            return lane, calls

    def drain(self) -> list[Call]:
        """Everything that was not taken yet."""
        with self._changed:
            calls = [call for queue in self._lanes.values() for call in queue]
            self._lanes.clear()
            return calls

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
