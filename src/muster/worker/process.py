"""A worker process. Started by an engine (or by an HTEX worker), as the user, in a session of its own.

It runs the calls that come in on one socket, in order, and answers on it. It must never hold back a finished result,
never run a call that was taken back, and never outlive the process that started it.
"""

from __future__ import annotations

import marshal
import mmap
import os
import signal
import sys
import time
from collections import deque
from types import ModuleType
from typing import Any

from muster.serialize.running import live_only_with
from muster.worker.task import Runner, TaskOptions, details, with_user_paths

# Shared memory, eight bytes each: what the engine may know without asking, even of a dead worker.
RUNNING = 0  # number of the call that was started last
STARTED_NS = 1  # when, on the monotonic clock; 0 while nothing runs
TAKEN_BACK = 2  # written by the engine: calls up to this number that have not started must not start
SLOTS_BYTES = 64
HEAD = 8  # length of a frame
_READ_BYTES = 1 << 18


def frame(message: Any) -> bytes:
    """One message: both ends are the same interpreter, so its fastest format will do."""
    body = marshal.dumps(message)
    return len(body).to_bytes(HEAD, "little") + body


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete now."""
        pending = self._pending
        pending += data
        messages, at = [], 0
        while len(pending) - at >= HEAD:
            end = at + HEAD + int.from_bytes(pending[at : at + HEAD], "little")
            if len(pending) < end:
                break
            messages.append(marshal.loads(bytes(pending[at + HEAD : end])))  # noqa: S302 - from our own other half
            at = end
        del pending[:at]
        return messages


class Worker:
    """The loop: read calls, run them one by one, write each result at once."""

    def __init__(self, descriptor: int, slots: memoryview, options: TaskOptions) -> None:
        self._descriptor = descriptor
        self._slots = slots
        self._runner = Runner(options, exclusive=True)
        self._pid = os.getpid()
        self._codes: dict[int, str] = {}
        self._frames = Frames()
        self._calls: deque[tuple[int, int, bytes, str, tuple[str, ...]]] = deque()

    def serve(self) -> None:
        """Until the other end closes."""
        self._write(frame(details()))
        while True:
            while self._calls:
                self._run(*self._calls.popleft())
            data = os.read(self._descriptor, _READ_BYTES)
            if not data:
                return
            for forget, codes, calls in self._frames.feed(data):
                if forget:
                    self._codes.clear()
                self._codes.update(codes)
                self._calls.extend(calls)

    def _run(self, number: int, code: int, task: bytes, payload: str, serializers: tuple[str, ...]) -> None:
        slots = self._slots
        slots[STARTED_NS] = time.monotonic_ns()
        slots[RUNNING] = number  # first say it, then look: the engine does it the other way round
        if number <= slots[TAKEN_BACK]:
            slots[STARTED_NS] = 0
            self._write(frame((number, None)))
            return
        ran = self._runner.run(task, self._codes[code], payload, serializers)
        if os.getpid() != self._pid:
            os._exit(0)  # a fork of the user's came back from the call: only the first process answers
        slots[STARTED_NS] = 0
        self._write(frame((number, tuple(ran))))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]


def main(descriptor: int, slots_descriptor: int, lifeline: int, options: dict[str, Any]) -> None:
    """The process: tie it to its parent, forget how it was started, serve."""
    live_only_with(lifeline)
    for inherited in (descriptor, slots_descriptor, lifeline):
        os.set_inheritable(inherited, False)
    slots = memoryview(mmap.mmap(slots_descriptor, SLOTS_BYTES)).cast("Q")
    os.close(slots_descriptor)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with_user_paths()
    chosen = TaskOptions.of(options)
    if chosen.working_dir is not None:
        os.makedirs(chosen.working_dir, mode=0o700, exist_ok=True)  # noqa: PTH103
        os.chdir(chosen.working_dir)
    sys.modules["__main__"] = ModuleType("__main__")  # code that comes by value finds an empty one
    sys.argv = [""]
    Worker(descriptor, slots, chosen).serve()
