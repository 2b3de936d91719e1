"""What goes out to one peer: many small frames in one write, and no more in memory than the peer is willing to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from muster.broker.limits import Limits


class Writer:
    """Collects frames until the end of the loop's turn. `hold` is called when replies pile up, `room` when the peer
    has read again, `before_flush` to add what is due.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        *,
        before_flush: Callable[[], None],
        hold: Callable[[], None],
        room: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._delivery_mark = limits.delivery_buffer_bytes
        self._reply_mark = limits.reply_buffer_bytes
        self._before_flush = before_flush
        self._hold = hold
        self._room = room
        self._parts: list[bytes | memoryview] = []
        self._bytes = 0
        self._flush_due = False
        self._congested = False
        self._starved = False
        self.holding = False  # the peer is not read because it does not read
        self.sent_at = self._loop.time()
        transport.set_write_buffer_limits(high=self._delivery_mark, low=self._delivery_mark // 4)

    def send(self, data: bytes | memoryview) -> None:
        self._parts.append(data)
        self._bytes += len(data)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)
        if self._bytes > self._reply_mark and not self.holding:
            self.holding = True
            self._hold()

    def has_room(self) -> bool:
        """Whether one more delivery may be sent; who asked in vain is fed when there is room again."""
        if self._congested or self._bytes > self._delivery_mark:
            self._starved = True
            return False
        return True

    def flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand everything to the transport; it may keep what the peer does not read."""
        self._before_flush()
        self._flush_due = False
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
            self.sent_at = self._loop.time()
            self._transport.write(data)
        unread = self._transport.get_write_buffer_size()
        if unread > self._reply_mark and not self.holding:
            self.holding = True
            self._hold()
        elif not self._congested:
            self._open_up()

    def beat(self, frame: bytes) -> None:
        """A heartbeat, unless other bytes are waiting to be read: those prove as much."""
        self.sent_at = self._loop.time()
        if not self._congested:
            self._transport.write(frame)

    def pause(self) -> None:
        self._congested = True

    def resume(self) -> None:
        self._congested = False
        self._open_up()

    def _open_up(self) -> None:
        if self._starved or self.holding:
            self._starved = self.holding = False
            self._room()

    def unsent_bytes(self) -> int:
        return self._bytes + self._transport.get_write_buffer_size()

    def drop(self) -> None:
        self._parts.clear()
        self._bytes = 0
