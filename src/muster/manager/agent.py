"""The agent: started by the monitor as an unprivileged account, in its own state directory.

It talks to the service and the broker, and asks root for what it may ask. It must never hold a key that root trusts.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from muster.config import read_manager
from muster.config.manager import CONFIG
from muster.errors import MusterError, NotPermitted, Outage
from muster.manager.children import Children
from muster.manager.registration import register
from muster.manager.rootlink import Hello, RootLink, Site, keep_private, receive_hello
from muster.manager.starts import Starts
from muster.rest import Rest
from muster.rest.errands import aside
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Outgoing
from muster.wire import topology
from muster.wire.bundle import VERSION
from muster.wire.envelope import StatusReport, encode

log = logging.getLogger(__name__)

_LAST_WORDS_S = 8
_PAUSE_S = 1.0
_MOST_EXITS = 500  # in one report
_AHEAD = 100  # commands in hand


class Agent:
    """One run, from hello to the last heartbeat."""

    def __init__(self, link: socket.socket, hello: Hello, site: Site, period_s: float) -> None:
        self._hello, self._site = hello, site
        self._endpoint = UUID(hello.endpoint_id)
        self._period_s = period_s
        self._root = RootLink(link)
        self._children = Children(hello.running)
        self._rest = Rest()
        self._transport: AmqpTransport | None = None
        self._exits: list[dict[str, Any]] = []
        self._beat_now = asyncio.Event()
        self._starts = Starts(self._root, self._children, self._report)
        self._taken: set[asyncio.Task[None]] = set()
        self._commands: asyncio.Task[None] | None = None
        self._replaced = False
        self._stopping = False

    async def run(self) -> None:
        """Serve until the monitor says so, or is gone."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._replace)
        for fact in self._children.lost():
            self._report(fact)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve())
            watching = group.create_task(self._watch())
            await self._hear()
            serving.cancel()
            watching.cancel()
        await self._leave()

    def _replace(self) -> None:
        """Another agent follows at once: the service need not hear of it."""
        self._replaced = True
        self._root.hang_up()

    async def _watch(self) -> None:
        """Only root can open the site's files, so a change of them takes an agent that is given the new ones."""
        while not self._site.changed():  # noqa: ASYNC110 -- files have no event that root would have to trust us with
            await asyncio.sleep(_PAUSE_S)
        log.info("The site's files changed: another agent registers them.")
        self._replace()

    async def _serve(self) -> None:
        transport = await self._connected()
        log.info("========== Endpoint Manager begins: %s", self._endpoint)
        log.info("        >>> Multi-User Endpoint ID: %s <<<", self._endpoint)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats(transport))
            self._commands = group.create_task(self._take_commands(transport))

    async def _connected(self) -> AmqpTransport:
        """Waits for a service that is away for as long as that takes."""
        while True:
            transport = AmqpTransport(self._url, label=f"manager {self._hello.name}")
            try:
                await transport.open()
            except Outage as why:
                log.warning("Waiting for the service: %s", why)
                await asyncio.sleep(_PAUSE_S)
            else:
                self._transport = transport
                return transport

    async def _url(self) -> str:
        """Registers again at every connect: a service that was restarted knows us, and the credentials are fresh."""
        registered = await aside(register, self._rest, self._hello, self._site)
        if registered.command_queue_info is None:
            raise NotPermitted(why="the service registered something else than a manager")
        self._beat_now.set()
        return registered.command_queue_info.connection_url

    async def _take_commands(self, transport: AmqpTransport) -> None:
        async for deliveries in transport.consume(topology.commands_queue(self._endpoint), ahead=_AHEAD):
            for delivery in deliveries:
                task = asyncio.create_task(self._starts.take(delivery))
                self._taken.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._taken.discard(task)
        if not task.cancelled() and (why := task.exception()):
            log.error("A start command could not be handled; the service will repeat it", exc_info=why)

    async def _heartbeats(self, transport: AmqpTransport) -> None:
        """Every period, and at once when a user endpoint ended."""
        while True:
            self._beat_now.clear()
            try:
                await self._beat(transport, self._period_s)
            except Outage as why:
                log.warning("A heartbeat could not be sent, its news stay with us: %s", why)
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                async with asyncio.timeout(0 if self._exits else self._period_s):
                    await self._beat_now.wait()
            except TimeoutError:
                continue

    async def _beat(self, transport: AmqpTransport, period_s: float) -> None:
        exits = self._exits[:_MOST_EXITS]
        state = {"heartbeat_period": period_s, "bundles": VERSION, **({"exits": exits} if exits else {})}
        body = encode(StatusReport(endpoint_id=str(self._endpoint), global_state=state))
        await transport.publish([Outgoing(topology.HEARTBEATS, topology.heartbeats_key(self._endpoint), body)])
        del self._exits[: len(exits)]
        self._children.told(exits)

    def _report(self, fact: dict[str, Any]) -> None:
        self._exits.append(fact)
        self._beat_now.set()

    async def _hear(self) -> None:
        """Until the monitor is gone, or stops and our last user endpoint has ended."""
        async for said in self._root.events():
            if said.event == "exited":
                self._report(self._children.ended(said.name, said.status))
            elif said.event == "stopping":
                self._stopping = True
                if self._commands is not None:
                    self._commands.cancel()
            if self._stopping and not self._children.running:
                return

    async def _leave(self) -> None:
        """The last words: our user endpoints' ends, and that we go, unless we are only replaced."""
        transport = self._transport
        if transport is None:
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                if transport.connected:  # else our children file keeps the news
                    await self._beat(transport, self._period_s if self._replaced else 0)
                await transport.close()
        except (Outage, TimeoutError) as why:
            log.warning("The service could not be told that the manager stops: %r", why)


async def serve(link: socket.socket) -> None:
    keep_private()
    hello, site = receive_hello(link)
    if os.environ.get("MUSTER_DEBUG"):
        logging.getLogger().setLevel(logging.DEBUG)
    configuration = read_manager(site.config, file=CONFIG, directory=Path())
    await Agent(link, hello, site, configuration.heartbeat_period).run()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--link-fd", type=int, required=True)
    link = options.parse_args().link_fd
    os.dup(link)  # never closed by us: the monitor hears the end of the line when the process is really gone
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # whatever it knows, it also raises
    try:
        asyncio.run(serve(socket.socket(fileno=link)))
    except* MusterError as group:
        for why in group.exceptions:
            log.error("The agent cannot go on: %s", why)  # noqa: TRY400 -- its sentence says it all
        sys.exit(1)


if __name__ == "__main__":
    main()
