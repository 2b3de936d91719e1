"""A Transport in a few dictionaries: the fake for tests that need queues and no broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muster.broker.exchange import topic_matches
from muster.errors import Conflict, NoSuchQueue, Outage
from muster.transport.contract import Binding, Delivery, Outgoing, QueueSpec, QueueState


@dataclass(eq=False)
class _Waiting:
    message: Outgoing
    position: int
    redelivered: bool = False
    kept: asyncio.Future[bool] | None = None


@dataclass
class _Queue:
    spec: QueueSpec
    ready: deque[_Waiting] = field(default_factory=deque)
    readers: list[_Reader] = field(default_factory=list)
    gone: bool = False
    positions: int = 0

    def pump(self) -> None:
        for reader in self.readers:
            reader.wake.set()


@dataclass(eq=False)
class _Reader:
    queue: _Queue
    ahead: int
    ahead_bytes: int
    exclusive: bool
    open: set[_Waiting] = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def has_room(self) -> bool:
        if self.ahead and len(self.open) >= self.ahead:
            return False
        return not self.ahead_bytes or sum(len(waiting.message.body) for waiting in self.open) < self.ahead_bytes

    def take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        while self.queue.ready and self.has_room():
            waiting = self.queue.ready.popleft()
            self.open.add(waiting)
            taken.append(waiting)
        return taken

    def put_back(self, entries: Sequence[_Waiting]) -> None:
        mine = [waiting for waiting in entries if waiting in self.open]
        self.open.difference_update(mine)
        for waiting in mine:
            waiting.redelivered = True
        everything = sorted([*mine, *self.queue.ready], key=lambda waiting: waiting.position)
        self.queue.ready = deque(everything)
        self.queue.pump()


class MemoryDelivery:
    """A message from a dictionary."""

    def __init__(self, reader: _Reader, waiting: _Waiting) -> None:
        message = waiting.message
        self._reader = reader
        self._waiting = waiting
        self.body = message.body
        self.exchange = message.exchange
        self.routing_key = message.routing_key
        self.redelivered = waiting.redelivered
        self.content_type = message.content_type
        self.headers: Mapping[str, Any] = message.headers or {}
        self.timestamp_s = message.timestamp_s

    def ack(self) -> None:
        if self._waiting in self._reader.open:
            self._reader.open.remove(self._waiting)
            kept = self._waiting.kept
            if kept is not None and not kept.done():
                kept.set_result(True)
            self._reader.wake.set()

    def requeue(self) -> None:
        self._reader.put_back([self._waiting])


class MemoryQueues:
    """What several transports share, as several clients share a broker."""

    def __init__(self) -> None:
        self.queues: dict[str, _Queue] = {}
        self.bindings: dict[str, set[tuple[str, Binding]]] = {}

    def route(self, exchange: str, routing_key: str) -> list[_Queue]:
        if not exchange:
            names = {routing_key}
        else:
            names = {name for name, binding in self.bindings.get(exchange, ()) if _takes(binding, routing_key)}
        return [self.queues[name] for name in names if name in self.queues]


def _takes(binding: Binding, routing_key: str) -> bool:
    if binding.kind == "topic":
        return topic_matches(binding.routing_key, routing_key)
    return binding.routing_key == routing_key


class MemoryTransport:
    """Passes the contract of the real ones; give several the same `MemoryQueues` and they talk to each other."""

    def __init__(self, queues: MemoryQueues | None = None) -> None:
        self.shared = queues or MemoryQueues()
        self._readers: list[_Reader] = []
        self._closed = False

    async def open(self) -> None:
        """Nothing to connect."""

    async def declare(self, queue: QueueSpec) -> bool:
        created = queue.name not in self.shared.queues
        if created:
            self.shared.queues[queue.name] = _Queue(queue)
        self.shared.queues[queue.name].spec = replace(queue)
        for binding in queue.bindings:
            if binding.exchange:
                self.shared.bindings.setdefault(binding.exchange, set()).add((queue.name, binding))
        return created

    async def delete(self, queue: str) -> None:
        found = self.shared.queues.pop(queue, None)
        if found is None:
            return
        for bound in self.shared.bindings.values():
            bound -= {pair for pair in bound if pair[0] == queue}
        found.gone = True
        for waiting in found.ready:
            if waiting.kept is not None and not waiting.kept.done():
                waiting.kept.set_result(False)
        found.pump()

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        if self._closed:
            raise Outage("the transport is closed", what="The broker")
        kept: list[asyncio.Future[bool]] = []
        missing: Outgoing | None = None
        for message in messages:
            queues = self.shared.route(message.exchange, message.routing_key)
            missing = missing if queues else message
            kept += [promise for queue in queues if (promise := _put(queue, message)) is not None]
        if kept and not all(await asyncio.gather(*kept)):
            raise Outage("a queue was deleted before its reader had kept a message", what="The broker")
        if missing is not None:
            raise NoSuchQueue(f"no queue for {missing.exchange!r} {missing.routing_key!r}")

    async def consume(
        self, queue: str, *, ahead: int = 0, ahead_bytes: int = 0, exclusive: bool = False
    ) -> AsyncGenerator[list[Delivery], None]:
        found = self.shared.queues.get(queue)
        if found is None:
            raise NoSuchQueue(f"no queue {queue!r}")
        if any(other.exclusive for other in found.readers) or (exclusive and found.readers):
            raise Conflict(f"{queue!r} is in exclusive use", why=f"Queue {queue} is read by somebody else.")
        reader = _Reader(found, ahead, ahead_bytes, exclusive)
        found.readers.append(reader)
        self._readers.append(reader)
        try:
            while not self._closed:
                taken = reader.take()
                if taken:
                    yield [MemoryDelivery(reader, waiting) for waiting in taken]
                elif found.gone:
                    raise NoSuchQueue(f"queue {queue!r} was deleted")
                else:
                    reader.wake.clear()
                    await reader.wake.wait()
        finally:
            if reader in found.readers:
                found.readers.remove(reader)

    async def state(self, queue: str) -> QueueState | None:
        found = self.shared.queues.get(queue)
        return None if found is None else QueueState(len(found.ready), len(found.readers))

    async def close(self) -> None:
        self._closed = True
        for reader in self._readers:
            if reader in reader.queue.readers:
                reader.queue.readers.remove(reader)
            reader.put_back(list(reader.open))
            reader.wake.set()


def _put(queue: _Queue, message: Outgoing) -> asyncio.Future[bool] | None:
    queue.positions += 1
    promise: asyncio.Future[bool] | None = None
    if queue.spec.confirm_on_ack:
        promise = asyncio.get_running_loop().create_future()
    queue.ready.append(_Waiting(message, queue.positions, kept=promise))
    queue.pump()
    return promise
