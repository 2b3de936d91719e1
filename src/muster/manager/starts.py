"""Start commands: from a message on our queue to an order on root's table."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from muster.errors import UndecodableMessage
from muster.manager.children import Children, EarlyLog, exit_fact
from muster.manager.rootlink import RootLink, memory_file
from muster.transport.contract import Delivery
from muster.wire.command import START, Sealed, StartCommand, decode_command, decode_payload
from muster.wire.order import LIMIT_BYTES

log = logging.getLogger(__name__)

_SKEW_S = 180
_AT_ONCE = 16  # starts under way
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_WORTH_WAITING_S = 5.0
_SETTLED_S = 120.0
_NAMES = 10_000
_TOO_OLD = 3  # that many in a row for one name: our clocks differ, and asking again will not help
_SKEWED = "Ignoring command from server\nCommand too old or skew between system clocks is too large."
_UNSEALED = "The site takes sealed start orders only; its administrator must register the endpoint again."

Report = Callable[[dict[str, Any]], None]


class Pace:
    """At most one start of a name at a time, and slower and slower for one that keeps failing."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}  # name -> (began, pause before the next)

    def wait_s(self, name: str, now_s: float) -> float:
        """How long the next start has to wait."""
        began_s, pause_s = self._last.get(name, (float("-inf"), _PAUSE_S))
        return max(0.0, began_s + pause_s - now_s)

    def begin(self, name: str, now_s: float) -> None:
        """It is started now."""
        began_s, pause_s = self._last.pop(name, (float("-inf"), _PAUSE_S))
        calm = now_s - began_s > _SETTLED_S
        self._last[name] = now_s, _PAUSE_S if calm else min(_LONGEST_PAUSE_S, pause_s * 2)
        if len(self._last) > _NAMES:
            del self._last[next(iter(self._last))]


class Starts:
    """Takes commands; `report` gets what the service must be told under our own id."""

    def __init__(self, root: RootLink, children: Children, report: Report) -> None:
        self._root = root
        self._children = children
        self._report = report
        self._pace = Pace()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._too_old: dict[str, int] = {}
        self._soon: set[str] = set()  # names whose start waits for its time

    async def take(self, delivery: Delivery) -> None:
        """Acknowledged when root has answered: an agent that dies before leaves the command to the next."""
        try:
            await self._obey(_command(delivery), delivery.timestamp_s)
        except UndecodableMessage as why:
            log.warning("Ignoring command from server: %s", why.message())
        delivery.ack()

    async def _obey(self, command: StartCommand, sent_s: int | None) -> None:
        sealed = command.sealed
        if sealed is None or len(sealed.order) > LIMIT_BYTES:
            log.error("A start order without a seal was refused. Remove root.json and start again to get a new key.")
            if command.kwargs is not None:
                self._report(exit_fact(command.kwargs.name, "START_FAILED", _UNSEALED))
            return
        name = decode_payload(sealed.payload).name
        if sent_s is None or abs(time.time() - sent_s) > _SKEW_S:
            self._stale(name, "its timestamp is missing or too far away")
        elif await self._in_time(name):
            async with self._room:
                self._pace.begin(name, time.monotonic())
                await self._start(name, sealed)

    async def _in_time(self, name: str) -> bool:
        """Whether to start it, now that it is time. A later order finds an earlier one waiting, and is not needed;
        after a long pause the service will have asked again.
        """
        wait_s = self._pace.wait_s(name, time.monotonic())
        if name in self._soon or wait_s > _WORTH_WAITING_S:
            return False
        self._soon.add(name)
        try:
            await asyncio.sleep(wait_s)
        finally:
            self._soon.discard(name)
        return True

    async def _start(self, name: str, sealed: Sealed) -> None:
        early, payload = EarlyLog(), memory_file(sealed.payload.encode())
        kept = False
        try:
            said = await self._root.start(sealed.order, sealed.seal, payload, early.write_end)
            kept = said.code == "STARTED"
        finally:
            os.close(payload)
            os.close(early.write_end)
            if not kept:
                early.close()
        if kept:
            self._too_old.pop(name, None)
            self._children.started(name, early)
        elif said.code == "STALE":
            self._stale(name, said.public)
        elif said.code != "RUNNING":
            self._report(exit_fact(name, said.code, said.public))

    def _stale(self, name: str, why: str) -> None:
        """Old orders wait on the queue when we were away; only a fresh one that looks old is worth an error."""
        log.warning("Ignoring a start order for %s: %s", name, why)
        count = self._too_old.pop(name, 0) + 1
        if count >= _TOO_OLD:
            self._report(exit_fact(name, "START_FAILED", _SKEWED))
            return
        self._too_old[name] = count
        if len(self._too_old) > _NAMES:
            del self._too_old[next(iter(self._too_old))]


def _command(delivery: Delivery) -> StartCommand:
    """A table of one: names from outside select nothing else."""
    command = decode_command(delivery.body)
    if delivery.content_type != "application/json" or command.command != START:
        raise UndecodableMessage(why=f"{command.command[:60]!r} as {delivery.content_type!r}")
    return command
