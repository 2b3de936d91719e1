"""Heartbeats of one connection: ours go out, a peer whose own stay away is dead."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from muster.broker.frames import HEARTBEAT_FRAME
from muster.broker.writer import Writer

if TYPE_CHECKING:
    from muster.broker.connection import Connection

log = logging.getLogger("muster.broker")


class Pulse:
    """Looks twice per interval. While we ourselves do not read the peer, its silence means nothing; then it must
    at least go on reading.
    """

    def __init__(self, connection: Connection, writer: Writer, stalled_s: float) -> None:
        self._connection = connection
        self._writer = writer
        self._stalled_s = stalled_s
        self._loop = asyncio.get_running_loop()
        self._interval_s = 0
        self._heard_at = self._moved_at = self._loop.time()
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, interval_s: int) -> None:
        """`interval_s` as negotiated; 0 sends none and expects none."""
        self._interval_s = interval_s
        self._again()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def heard(self) -> None:
        self._heard_at = self._loop.time()

    def _again(self) -> None:
        self._timer = self._loop.call_later((self._interval_s or self._stalled_s) / 2, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._dead(now):
            log.warning("broker connection of %r from %s is dead", self._connection.username, self._connection.peer)
            self._connection.abort()
            return
        if self._interval_s and now - self._writer.sent_at >= self._interval_s / 2:
            self._writer.beat(HEARTBEAT_FRAME)
        self._again()

    def _dead(self, now: float) -> bool:
        unsent = self._writer.unsent_bytes()
        if unsent < self._unsent_bytes or not unsent:
            self._moved_at = now
        self._unsent_bytes = unsent
        held = self._connection.held
        if "unread" in held:
            return now - self._moved_at > max(self._stalled_s, 2 * self._interval_s)
        if held or not self._interval_s:
            return False
        return now - self._heard_at > 2 * self._interval_s
