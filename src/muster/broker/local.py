"""The Transport contract without a socket: the service's own way into the embedded broker, with all rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

from pamqp import commands

from muster.broker import faults, frames
from muster.broker.message import Entry, Message
from muster.broker.queue import Queue
from muster.broker.server import Broker
from muster.errors import Conflict, NoSuchQueue, Outage, QueueFull
from muster.transport.contract import Delivery, Outgoing, QueueSpec, QueueState


class LocalDelivery:
    """A message in the hands of this process."""

    __slots__ = (
        "_entry",
        "_reader",
        "body",
        "content_type",
        "exchange",
        "headers",
        "redelivered",
        "routing_key",
        "timestamp_s",
    )

    def __init__(self, reader: _Reader, entry: Entry) -> None:
        message = entry.message
        properties = frames.properties(message.header[12:])
        self._reader = reader
        self._entry: Entry | None = entry
        self.body = message.body
        self.exchange = message.exchange
        self.routing_key = message.routing_key
        self.redelivered = entry.redelivered
        self.content_type: str | None = properties.content_type or None
        self.headers: Mapping[str, Any] = properties.headers or {}
        stamp = properties.timestamp
        self.timestamp_s: int | None = int(stamp.timestamp()) if stamp is not None else None

    def ack(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self._reader.settle(entry)

    def requeue(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self._reader.put_back([entry])


class _Reader:
    """A consumer in this process. What it handed out stays its own until settled, even when it takes no more."""

    def __init__(self, queue: Queue, ahead: int, ahead_bytes: int, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.gone = False
        self.stopped = False
        self._queue = queue
        self._ahead = ahead
        self._ahead_bytes = ahead_bytes
        self._open: dict[Entry, None] = {}
        self._arrived: list[Entry] = []
        self._wake = asyncio.Event()

    def can_take(self) -> bool:
        if self._ahead and len(self._open) >= self._ahead:
            return False
        return not self._ahead_bytes or sum(len(entry.message.body) for entry in self._open) < self._ahead_bytes

    def take(self, entry: Entry) -> None:
        self._open[entry] = None
        self._arrived.append(entry)
        self._wake.set()

    def queue_gone(self) -> None:
        self.gone = True
        unseen, self._arrived = self._arrived, []
        self.put_back(unseen)  # the queue throws it away
        self._wake.set()

    def settle(self, entry: Entry) -> None:
        if entry in self._open:
            del self._open[entry]
            self._queue.settle(entry)
            self._queue.pump()

    def put_back(self, entries: Sequence[Entry]) -> None:
        mine = [entry for entry in entries if entry in self._open]
        for entry in mine:
            del self._open[entry]
        self._queue.put_back(mine)
        self._queue.pump()

    async def arrived(self) -> list[Delivery]:
        await self._wake.wait()
        self._wake.clear()
        entries, self._arrived = self._arrived, []
        return [LocalDelivery(self, entry) for entry in entries]

    def wake(self) -> None:
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether it reads, or holds something that is not settled."""
        return not self.stopped or bool(self._open)

    def stop(self) -> None:
        """No more arrivals; what nobody has seen goes back."""
        self.stopped = True
        self._queue.remove(self)
        unseen, self._arrived = self._arrived, []
        self.put_back(unseen)

    def give_back_all(self) -> None:
        self.put_back(list(self._open))


class LocalTransport:
    """Direct calls, so a batch costs no more than its messages."""

    def __init__(self, broker: Broker, *, patience_s: float = 30) -> None:
        self._topology = broker.topology
        self._patience_s = patience_s
        self._readers: set[_Reader] = set()
        self._room = asyncio.Event()
        self._closed = False
        self._topology.pressure_changed.add(self._pressure_changed)

    async def open(self) -> None:
        """Nothing to connect; here so that it opens like the others."""

    async def declare(self, queue: QueueSpec) -> bool:
        for binding in queue.bindings:
            if binding.exchange:
                self._topology.declare_exchange(binding.exchange, binding.kind)
        created = self._topology.declare_queue(queue.name, confirm_on_ack=queue.confirm_on_ack)
        for binding in queue.bindings:
            if binding.exchange:
                self._topology.bind(queue.name, binding.exchange, binding.routing_key)
        return created

    async def delete(self, queue: str) -> None:
        found = self._topology.queues.get(queue)
        if found is not None:
            self._topology.delete_queue(found)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        waiting: list[asyncio.Future[bool]] = []
        missing: Outgoing | None = None
        for outgoing in messages:  # all or nothing: whoever is refused sends all of them again
            for queue in self._route(outgoing):
                if not queue.confirm_on_ack and not self._topology.has_room(queue):
                    raise QueueFull(f"{queue.name} holds {queue.held_bytes} bytes", what="The broker")
        for outgoing in messages:
            await self._wait_for_room()
            queues = self._route(outgoing)
            if not queues:
                missing = outgoing
                continue
            kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            message = Message(outgoing.exchange, outgoing.routing_key, _header(outgoing), outgoing.body)
            if not self._topology.post(message, queues, partial(_tell, kept)):
                waiting.append(kept)
        if waiting and not all(await asyncio.gather(*waiting)):
            raise Outage("a queue was deleted before its reader had kept a message", what="The broker")
        if missing is not None:
            raise NoSuchQueue(f"no queue for {missing.exchange!r} {missing.routing_key!r}")

    def _route(self, outgoing: Outgoing) -> tuple[Queue, ...]:
        if self._closed:
            raise Outage("the transport is closed", what="The broker")
        try:
            return self._topology.route(outgoing.exchange, outgoing.routing_key)
        except faults.ChannelFault:
            return ()

    async def _wait_for_room(self) -> None:
        while self._topology.full and not self._closed:
            self._room.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._room.wait()
            except TimeoutError:
                raise Outage("the broker holds too many messages", what="The broker") from None

    def _pressure_changed(self, full: bool) -> None:
        if not full:
            self._room.set()

    async def consume(
        self, queue: str, *, ahead: int = 0, ahead_bytes: int = 0, exclusive: bool = False
    ) -> AsyncGenerator[list[Delivery], None]:
        if self._closed:
            return
        found = self._topology.queues.get(queue)
        if found is None:
            raise NoSuchQueue(f"no queue {queue!r}")
        self._readers = {reader for reader in self._readers if reader.busy}
        reader = _Reader(found, ahead, ahead_bytes, exclusive=exclusive)
        try:
            found.add(reader)
        except faults.ChannelFault as why:
            raise Conflict(why.text, why=f"Queue {queue} is read by somebody else.") from None
        self._readers.add(reader)
        found.pump()
        try:
            while True:
                deliveries = await reader.arrived()
                if deliveries:
                    yield deliveries
                if reader.gone:
                    raise NoSuchQueue(f"queue {queue!r} was deleted")
                if reader.stopped:
                    return
        finally:
            reader.stop()

    async def state(self, queue: str) -> QueueState | None:
        found = self._topology.queues.get(queue)
        return None if found is None else QueueState(len(found.ready), len(found.consumers))

    async def close(self) -> None:
        self._closed = True
        self._topology.pressure_changed.discard(self._pressure_changed)
        self._room.set()
        for reader in self._readers:
            reader.stop()
            reader.give_back_all()
            reader.wake()
        self._readers.clear()


def _tell(kept: asyncio.Future[bool], yes: bool) -> None:
    if not kept.done():
        kept.set_result(yes)


def _header(outgoing: Outgoing) -> bytes:
    if outgoing.headers:
        properties = _properties(outgoing)
        return frames.header_of(properties, len(outgoing.body))
    plain = _plain(outgoing.content_type, outgoing.content_encoding, outgoing.timestamp_s)
    return frames.HEADER_START.pack(60, 0, len(outgoing.body)) + plain


@lru_cache(maxsize=256)
def _plain(content_type: str | None, content_encoding: str | None, timestamp_s: int | None) -> bytes:
    return _properties(Outgoing("", "", b"", content_type, content_encoding, None, timestamp_s)).marshal()


def _properties(outgoing: Outgoing) -> commands.Basic.Properties:
    stamp = outgoing.timestamp_s
    return commands.Basic.Properties(
        content_type=outgoing.content_type,
        content_encoding=outgoing.content_encoding,
        headers=dict(outgoing.headers) if outgoing.headers else None,
        delivery_mode=2,
        timestamp=None if stamp is None else datetime.fromtimestamp(stamp, UTC),
    )
