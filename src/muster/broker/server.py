"""The broker: a listening socket, its connections, and what they share.

Runs in the service's process and event loop, as the service's account. Holds messages in memory only; it must never
answer for a message that the store does not have (see QueueSpec.confirm_on_ack).
"""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from muster.broker import faults
from muster.broker.connection import Connection
from muster.broker.limits import Limits
from muster.broker.permissions import Allows, allows
from muster.broker.topology import Topology
from muster.model.account import BrokerAccount

log = logging.getLogger("muster.broker")

Authorise = Callable[[str, str], Awaitable[BrokerAccount | None]]


class Broker:
    """An AMQP 0-9-1 server. Usable in process (`LocalTransport`) before `start`: declare the queues first, then
    listen, so that nobody finds a queue missing that is about to come back.
    """

    def __init__(self, authorise: Authorise, *, limits: Limits | None = None, rule: Allows = allows) -> None:
        self.authorise = authorise
        self.limits = limits or Limits()
        self.rule = rule
        self.topology = Topology(self.limits.memory_bytes, self.limits.queue_bytes)
        self.topology.pressure_changed.add(self._pressure_changed)
        self._handshaking: dict[Connection, None] = {}  # oldest first
        self._open: set[Connection] = set()
        self._per_account: Counter[str] = Counter()
        self._unfinished: Counter[str] = Counter()
        self._gone = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, ssl: tls.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listen; the address in use (port 0 picks a free one)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, ssl=ssl, backlog=1024)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Close every connection, telling its peer, and wait until they are gone."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in self._all():
            connection.fail(faults.ConnectionForced("broker forced connection closure with reason 'shutdown'"))
        deadline = asyncio.get_running_loop().time() + self.limits.close_s + 1
        while self._all() and asyncio.get_running_loop().time() < deadline:
            self._gone.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._gone.wait()
            except TimeoutError:
                break
        for connection in self._all():
            connection.abort()
        if server is not None:
            await server.wait_closed()

    def disconnect(self, usernames: Iterable[str]) -> int:
        """End the connections of these accounts (320), those still logging in as well; how many there were."""
        names = frozenset(usernames)
        ended = [connection for connection in self._all() if connection.username in names]
        for connection in ended:
            connection.fail(faults.ConnectionForced("credentials revoked"))
        return len(ended)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def _all(self) -> list[Connection]:
        return [*self._open, *self._handshaking]

    # -- told by connections

    def admit(self, connection: Connection) -> None:
        """A new one. Strangers must not keep customers out: the oldest of them makes room."""
        if len(self._open) + len(self._handshaking) >= self.limits.connections and not self._handshaking:
            log.warning("broker connection from %s refused: %d are open", connection.peer, len(self._open))
            connection.abort()
            return
        full = len(self._handshaking) >= self.limits.handshakes
        if full or len(self._open) + len(self._handshaking) >= self.limits.connections:
            oldest = next(iter(self._handshaking))
            del self._handshaking[oldest]
            oldest.abort()
        self._handshaking[connection] = None

    def welcome(self, connection: Connection) -> None:
        """It has logged in; 530 when its account has too many open."""
        if self._per_account[connection.username] >= self.limits.connections_per_account:
            raise faults.ConnectionFault(530, "NOT_ALLOWED - connection limit of this account is reached")
        self._handshaking.pop(connection, None)
        self._open.add(connection)
        self._per_account[connection.username] += 1

    def reserve(self, username: str, size: int) -> None:
        """Room for a message that is not whole yet; 506 when the connections of an account want too much at once."""
        if size > 0 and self._unfinished[username] + size > self.limits.unfinished_bytes:
            raise faults.ConnectionFault(506, "RESOURCE_ERROR - too many unfinished messages of this account")
        self._unfinished[username] += size
        if not self._unfinished[username]:
            del self._unfinished[username]

    def forget(self, connection: Connection) -> None:
        self._handshaking.pop(connection, None)
        if connection in self._open:
            self._open.remove(connection)
            self._per_account[connection.username] -= 1
            if not self._per_account[connection.username]:
                del self._per_account[connection.username]
        self._gone.set()

    def _pressure_changed(self, full: bool) -> None:
        log.log(
            logging.WARNING if full else logging.INFO,
            "broker %s: %d MiB of messages",
            "blocks publishers" if full else "takes messages again",
            self.topology.held_bytes >> 20,
        )
        for connection in list(self._open):
            connection.pressure(full=full)
