"""A place in the process engine where one worker after another sits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from muster.wire.bundle import TaskItem
from muster.worker.child import Child
from muster.worker.process import Frames, frame

MAX_CALLS = 100  # on their way to, or at, one worker
MAX_CHARACTERS = 1_000_000  # of payload in one message
_MAX_CODES = 256
_RECV_BYTES = 1 << 20


@dataclass(slots=True)
class Call:
    """One task in the engine's hands."""

    item: TaskItem
    code: str
    tries: int = 0  # workers that died with it unstarted


@dataclass(slots=True)
class Seat:
    """The worker of the moment, what it was given, what is still to be written to it."""

    number: int
    child: Child | None = None
    ready: bool = False
    calls: dict[int, Call] = field(default_factory=dict)  # given and not answered, by their number, in order
    expected_ns: float = 0.0  # how long these will take
    stalled: bool = False  # the one that runs takes far longer than expected
    overdue: int | None = None  # number of the call that it is being killed for
    early_deaths: int = 0
    frames: Frames = field(default_factory=Frames)
    _last: int = 0
    _codes: dict[str, int] = field(default_factory=dict)
    _unsent: bytearray = field(default_factory=bytearray)
    _exit: int = -1

    def take(self, child: Child, readable: Callable[[], None], exited: Callable[[], None]) -> None:
        """Seat this worker and listen to it."""
        self.child = child
        self.ready = self.stalled = False
        self.overdue = None
        self.frames = Frames()
        self._last = 0
        self._codes.clear()
        self._unsent.clear()
        child.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(child.socket, readable)
        # The exit itself, too: a process that the task forked may hold the socket open for ever.
        self._exit = child.exit_descriptor()
        loop.add_reader(self._exit, exited)

    def leave(self) -> dict[int, Call]:
        """Stop listening; the calls that were given and not answered."""
        if self.child is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.child.socket)
            loop.remove_writer(self.child.socket)
            loop.remove_reader(self._exit)
            os.close(self._exit)
        self.child, self.ready = None, False
        calls, self.calls, self.expected_ns = self.calls, {}, 0.0
        return calls

    def give(self, calls: list[Call]) -> None:
        """Send these in one message, with the code the worker does not have yet."""
        new: dict[int, str] = {}
        forget = len(self._codes) > _MAX_CODES
        if forget:
            self._codes.clear()
        rows = []
        for call in calls:
            code = self._codes.get(call.code)
            if code is None:
                # Numbers are never used twice: the worker may still hold calls with older ones.
                code = self._codes[call.code] = self._last
                new[code] = call.code
            self._last += 1
            self.calls[self._last] = call
            item = call.item
            rows.append((self._last, code, item.task, item.payload, item.serializers))
        self._write(frame((forget, new, rows)))

    def read(self) -> list[Any] | None:
        """Messages that have come; None when the connection is closed."""
        if self.child is None:
            return None
        try:
            data = self.child.socket.recv(_RECV_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self.frames.feed(data) if data else None

    def drain(self) -> list[Any]:
        """All that a dead worker had still written."""
        messages: list[Any] = []
        while self.child is not None:
            try:
                data = self.child.socket.recv(_RECV_BYTES)
            except OSError:
                break
            if not data:
                break
            messages += self.frames.feed(data)
        return messages

    def _write(self, data: bytes) -> None:
        if self.child is None:
            return
        if not self._unsent:
            sent = self._send(data)
            if sent == len(data):
                return
            data = data[sent:]
            asyncio.get_running_loop().add_writer(self.child.socket, self._continue)
        self._unsent += data

    def _continue(self) -> None:
        del self._unsent[: self._send(self._unsent)]
        if not self._unsent and self.child is not None:
            asyncio.get_running_loop().remove_writer(self.child.socket)

    def _send(self, data: bytes | bytearray) -> int:
        """How much the socket took. A broken one takes all: its death is on the way, and tells what is lost."""
        if self.child is None:
            return len(data)
        with suppress(BlockingIOError):
            try:
                return self.child.socket.send(data)
            except (BrokenPipeError, ConnectionResetError):
                return len(data)
        return 0
