"""The life of an endpoint that runs tasks, from its engine's start to its last report."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from muster.config import UserEndpointConfig
from muster.endpoint.disk import Place
from muster.endpoint.idle import Idle
from muster.endpoint.inbox import Inbox
from muster.endpoint.journal import Journal
from muster.endpoint.links import Links
from muster.endpoint.outbox import Outbox
from muster.endpoint.report import Reporter
from muster.endpoint.spool import Spool
from muster.engine.contract import Engine, Load
from muster.engine.registry import build
from muster.errors import MusterError, NoSuchQueue, Outage, StartFailed
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Transport
from muster.wire.bundle import ResultItem

log = logging.getLogger(__name__)

GRACE_S = 10  # for running tasks, and again for their results, once it is time to stop
_GOODBYE_S = 3
_SETUP_LIMIT_S = 600


@dataclass(frozen=True)
class Assignment:
    """What one endpoint is to do, and where. `ready` is called once it has checked in."""

    links: Links
    config: UserEndpointConfig
    place: Place
    name: str
    config_raw: str = ""
    mapped: Mapping[str, Any] = field(default_factory=dict)
    lifeline: int | None = None  # a pipe: its end means that whoever started us is gone
    ready: Callable[[], None] = lambda: None


class UserEndpoint:
    """One engine, one queue, one outbox."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._config = assignment.config
        links = assignment.links
        self._links = links
        self._engine: Engine = build(self._config.engine)
        directory = assignment.place.directory
        self._journal = Journal(directory / "journal")
        self._spool = Spool(assignment.place.part("results"))
        self._outbox = Outbox(links, self._spool, self._journal, self._confirmed)
        allowed = links.allowed_functions
        if allowed is None:  # the manager's list wins over the template's
            allowed = self._config.allowed_functions
        self._inbox = Inbox(links.endpoint, self._engine, self._outbox, self._journal, allowed)
        self._reporter = Reporter(self._config.heartbeat_period, assignment.config_raw, assignment.mapped)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._beat_now = asyncio.Event()
        self._engine_up = False

    async def run(self) -> None:
        """Serve until told to stop, idle, or refused by the broker (which raises). StartFailed before the check-in."""
        unwatch = self._watch_signals()
        transport = AmqpTransport(self._links.url, label=self._assignment.name, on_connected=self._beat_now.set)
        try:
            if await self._start(transport):
                await self._check_in(transport)
                await self._serve(transport)
        finally:
            await self._stop_engine()
            await transport.close()
            await self._shell(self._config.endpoint_teardown, "endpoint_teardown")
            self._spool.close()
            self._journal.close()
            unwatch()

    def stop(self, reason: str) -> None:
        """Begin to stop; a second time, without waiting for running tasks."""
        if self._stopping.is_set():
            self._hurry.set()
            return
        log.info("Stopping: %s.", reason)
        self._assignment.place.leaving()
        self._stopping.set()

    async def _start(self, transport: AmqpTransport) -> bool:
        """The engine and the connection, at the same time; False when told to stop during the setup."""
        status = await self._shell(self._config.endpoint_setup, "endpoint_setup", self._stopping)
        if self._stopping.is_set():
            return False
        if status:
            raise StartFailed(why=f"endpoint_setup ended with status {status}; its output is in endpoint.log")
        workdir = self._assignment.place.part("tasks_working_dir")
        starting = asyncio.create_task(self._engine.start(workdir, self._deliver))
        opening = asyncio.create_task(transport.open())
        try:
            await asyncio.wait({starting, opening}, return_when=asyncio.FIRST_EXCEPTION)
            await starting  # to its end in any case: half an engine cannot be stopped
            self._engine_up = True
            await opening
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        return True

    async def _check_in(self, transport: Transport) -> None:
        self._outbox.recover()
        await transport.publish([self._links.report(self._reporter.state(self._engine.load()))])
        self._beat_now.clear()
        log.info("Checked in as %s.", self._links.endpoint)
        self._assignment.ready()

    async def _serve(self, transport: AmqpTransport) -> None:
        publisher = asyncio.create_task(self._outbox.run(transport), name="outbox")
        consumer = asyncio.create_task(self._inbox.run(transport, self._links.tasks_queue), name="inbox")
        heart = asyncio.create_task(self._beat(transport), name="heartbeats")
        told = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait({publisher, consumer, heart, told}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {told}:
                task.result()  # raises why: a refusal of the broker is final
            await self._wind_down(transport, publisher)
        finally:
            tasks = [publisher, consumer, heart, told]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wind_down(self, transport: AmqpTransport, publisher: asyncio.Task[None]) -> None:
        """Finish what runs, send what is done, say goodbye. What never ran goes back to the queue."""
        self._inbox.close()
        hurry = asyncio.create_task(self._hurry.wait())
        await _first(GRACE_S, hurry, self._inbox.quiet())
        await self._stop_engine()
        await _first(GRACE_S, publisher, self._outbox.flushed())
        hurry.cancel()
        if len(self._outbox):
            log.warning("%d results could not be sent; the next start sends them.", len(self._outbox))
        if transport.connected:
            await self._say_goodbye(transport)

    async def _say_goodbye(self, transport: Transport) -> None:
        """A courtesy: the service also notices that nobody reads the queue."""
        try:
            async with asyncio.timeout(_GOODBYE_S):
                state = self._reporter.state(Load(0, 0, 0, {}), active=False)
                await transport.publish([self._links.report(state)])
        except (TimeoutError, MusterError) as why:
            log.warning("The last report could not be sent (%s).", why)

    async def _stop_engine(self) -> None:
        if self._engine_up:
            self._engine_up = False
            await self._engine.stop()

    async def _beat(self, transport: Transport) -> None:
        clock = asyncio.get_running_loop().time
        soft, hard = self._config.idle_heartbeats_soft, self._config.idle_heartbeats_hard
        idle = Idle(soft, hard, self._config.heartbeat_period, clock())
        while True:
            await self._next_beat()
            outstanding = self._inbox.waiting + self._inbox.running + len(self._outbox)
            idle.observe(clock(), moved=self._inbox.received + self._outbox.delivered, outstanding=outstanding)
            if (reason := idle.verdict(clock())) is not None:
                self.stop(reason)
                return
            try:
                await transport.publish([self._links.report(self._state())])
            except (Outage, NoSuchQueue) as why:
                log.warning("A heartbeat could not be sent (%s).", why)

    async def _next_beat(self) -> None:
        """After the period, and at once on a new connection: a service that was restarted waits for our word."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.heartbeat_period):
                await self._beat_now.wait()
        self._beat_now.clear()

    def _state(self) -> dict[str, Any]:
        load = self._engine.load()
        return self._reporter.state(Load(load.waiting + self._inbox.waiting, load.running, load.workers, load.figures))

    def _deliver(self, items: list[ResultItem]) -> None:
        self._outbox.deliver(items)
        self._inbox.ended([item.task for item in items])

    def _confirmed(self, tasks: list[bytes]) -> None:
        self._inbox.confirmed(tasks)

    async def _shell(self, command: str, name: str, enough: asyncio.Event | None = None) -> int:
        """Run the user's command, `enough` cuts it short; its output goes to the log. The exit status, negative for a
        signal.
        """
        if not command.strip():
            return 0
        nowhere = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_shell(command, stdin=nowhere, start_new_session=True)
        ended = asyncio.create_task(process.wait())
        cut = asyncio.create_task((enough or asyncio.Event()).wait())
        await asyncio.wait({ended, cut}, timeout=_SETUP_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if not ended.done():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        status = await ended
        if status:
            log.warning("%s ended with status %d.", name, status)
        return status

    def _watch_signals(self) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, f"received {number.name}")
        lifeline = self._assignment.lifeline
        if lifeline is not None:
            loop.add_reader(lifeline, self._lifeline_moved, lifeline)

        def unwatch() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            if lifeline is not None:
                loop.remove_reader(lifeline)

        return unwatch

    def _lifeline_moved(self, lifeline: int) -> None:
        if os.read(lifeline, 4096):
            return  # nobody is meant to write there; only the end counts
        asyncio.get_running_loop().remove_reader(lifeline)
        self.stop("whoever started this endpoint is gone")


async def _first(limit_s: float, ready: asyncio.Task[Any], *works: Awaitable[Any]) -> None:
    """Return when `ready` or any of the works is done, at the latest after `limit_s`."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait({ready, *tasks}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
