"""The agent: started by the monitor as an unprivileged account, in its own state directory.

It talks to the service and the broker, and asks root for what it may ask. It must never hold a key that root trusts.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from typing import Any
from uuid import UUID

from muster.errors import MusterError, Outage
from muster.manager.children import Children
from muster.manager.configuration import Configuration, read_configuration
from muster.manager.registration import register
from muster.manager.rootlink import Hello, RootLink, Site, receive_hello
from muster.manager.starts import Starts
from muster.rest import Rest
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Outgoing
from muster.wire import topology
from muster.wire.bundle import VERSION
from muster.wire.envelope import StatusReport, encode
from muster.wire.rest import Registered

log = logging.getLogger(__name__)

_LAST_WORDS_S = 8
_LONGEST_PAUSE_S = 30.0
_MOST_EXITS = 500  # in one report


class Agent:
    """One run, from hello to the last heartbeat."""

    def __init__(self, link: socket.socket, hello: Hello, site: Site, configuration: Configuration) -> None:
        self._hello, self._site = hello, site
        self._endpoint = UUID(hello.endpoint_id)
        self._period_s = configuration.heartbeat_period
        self._root = RootLink(link)
        self._children = Children(hello.running)
        self._rest = Rest()
        self._transport = AmqpTransport(self._url, label=f"manager {hello.name}")
        self._registered: Registered | None = None
        self._exits: list[dict[str, Any]] = []
        self._beat_now = asyncio.Event()
        self._starts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the monitor says stop or is gone; what could not be told stays on disk for the next agent."""
        for name in self._children.lost:
            self._report({"endpoint_id": name.rpartition(".")[2], "code": "EXITED", "public": "the manager stopped"})
        await self._connect()
        log.info("========== Endpoint Manager begins: %s", self._endpoint)
        log.info("        >>> Multi-User Endpoint ID: %s <<<", self._endpoint)
        commands = asyncio.create_task(self._commands(), name="commands")
        beats = asyncio.create_task(self._heartbeats(), name="heartbeats")
        events = asyncio.create_task(self._events(commands), name="events")
        try:
            await asyncio.wait([commands, beats], return_when=asyncio.FIRST_EXCEPTION) if False else None
            done, _ = await asyncio.wait([events, beats], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (commands, beats, events):
                task.cancel()
            await asyncio.wait([commands, beats, events])
            await self._say_goodbye()
