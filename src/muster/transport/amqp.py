"""The Transport contract over AMQP 0-9-1: RabbitMQ, or the embedded broker over TCP."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from muster.errors import Conflict, MusterError, NoSuchQueue, NotPermitted, Outage, Refusal
from muster.transport.contract import Delivery, Outgoing, QueueSpec, QueueState
from muster.transport.link import HEARTBEAT_S, Channel, ChannelClosed, Link, LinkLost, connect
from muster.transport.publisher import Batch, Publisher
from muster.transport.reader import Reader, Window

log = logging.getLogger("muster.transport")

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
WORRY_S = 5.0  # away for longer than that, and people are told
_SETTLED_S = 5.0  # a connection that lived this long was a good one

Answer = TypeVar("Answer")


class _Closed(Outage):
    """We ended it ourselves."""


class AmqpTransport:
    """One connection that comes back by itself. `url` may be a callable: it is awaited at every connect, so that
    credentials can be renewed.
    """

    def __init__(
        self,
        url: str | Callable[[], Awaitable[str]],
        *,
        label: str = "",
        patience_s: float = 30,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = url
        self._on_connected = on_connected  # at every connect: whoever answers there may have forgotten us
        self._label = label
        self._patience_s = patience_s
        self._link: Link | None = None
        self._publisher: Publisher | None = None
        self._ready = asyncio.Event()  # connected, or never again
        self._end: MusterError | None = None
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = "no answer yet"
        self._worrying: asyncio.TimerHandle | None = None
        self._readers: set[Reader] = set()

    async def open(self) -> None:
        """Connect; Outage when nobody answers within the patience."""
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"amqp {self._label}")
        try:
            await self._connected(self._deadline())
        except BaseException:
            await self.close()
            raise

    # -- the connection

    async def _keep_connected(self) -> None:
        delay_s = FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        self._worry()
        while not self._closed:
            began = loop.time()
            try:
                await self._one_link()
            except (LinkLost, ChannelClosed, Outage, OSError) as why:
                self._trouble = str(why)
                log.info("%s: broker not reached, trying again: %s", self._label, why)
            except Refusal as why:
                log.warning("%s: broker connection ended for good: %s", self._label, why)
                self._finish(why)
                return
            except Exception as why:  # `url` is somebody else's code; whoever waits must not wait for ever
                log.exception("%s: broker connection ended by a defect", self._label)
                self._finish(Outage(repr(why), what="The broker"))
                return
            if loop.time() - began > _SETTLED_S:
                delay_s = FIRST_DELAY_S
            if not self._closed:
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    @property
    def connected(self) -> bool:
        """Whether there is a live connection now, as far as we can know."""
        return self._link is not None and not self._link.lost.is_set()

    async def _one_link(self) -> None:
        """Connect once, and serve until it is lost."""
        url = self._url if isinstance(self._url, str) else await self._url()
        link = await connect(url, self._label)
        try:
            self._publisher = await Publisher.open(link)
            self._link = link
            self._ready.set()
            self._on_connected()
            self._calm()
            await link.lost.wait()
            self._trouble = link.why
            log.info("%s: broker connection lost: %s", self._label, link.why)
        finally:
            self._link = self._publisher = None
            self._worry()
            if self._end is None:
                self._ready.clear()
            if not link.lost.is_set():
                await link.close()

    def _worry(self) -> None:
        """Unless it is back soon, say so, once: somebody may be waiting in front of a terminal."""
        self._calm()
        if not self._closed and self._end is None:
            self._worrying = asyncio.get_running_loop().call_later(WORRY_S, self._warn)

    def _calm(self) -> None:
        if self._worrying is not None:
            self._worrying.cancel()

    def _warn(self) -> None:
        log.warning("%s: the broker cannot be reached (%s); trying again", self._label or "muster", self._trouble)

    def _finish(self, why: MusterError) -> None:
        self._calm()
        self._end = why
        self._ready.set()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._patience_s

    async def _connected(self, deadline: float | None) -> tuple[Link, Publisher]:
        """The live connection; Outage when there is none before the deadline, and what ended us for good."""
        while True:
            if self._end is not None:
                raise self._end
            if self._closed:
                raise _Closed("the transport is closed", what="The broker")
            if self._link is not None and self._publisher is not None and not self._link.lost.is_set():
                return self._link, self._publisher
            self._ready.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._ready.wait()
            except TimeoutError:
                why = f"no connection to the broker within {self._patience_s:g} s ({self._trouble})"
                raise Outage(why, what="The broker") from None

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._calm()
        for reader in self._readers:
            reader.flush()
            reader.wake()
        link, keeper = self._link, self._keeper
        if link is not None:
            await link.close()
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        if self._end is None:
            self._finish(_Closed("the transport is closed", what="The broker"))

    # -- queues

    async def _ask(self, work: Callable[[Channel], Awaitable[Answer]]) -> Answer:
        """Do it on a channel of its own: an error of the broker closes that and nothing else."""
        deadline = self._deadline()
        while True:
            link, _ = await self._connected(deadline)
            try:
                channel = await link.channel()
                try:
                    return await work(channel)
                finally:
                    channel.close()
            except LinkLost:
                continue

    async def declare(self, queue: QueueSpec) -> bool:
        created = await self.state(queue.name) is None

        async def build(channel: Channel) -> None:
            raw = channel.raw
            # RabbitMQ obeys it from 3.12 on, and ignores it before; see docs/operator.md.
            limits = {} if queue.held_s is None else {"x-consumer-timeout": queue.held_s * 1000}
            await channel.call(raw.queue_declare, queue.name, durable=True, arguments=limits)
            for binding in queue.bindings:
                if binding.exchange:
                    await channel.call(raw.exchange_declare, binding.exchange, binding.kind, durable=True)
                    await channel.call(raw.queue_bind, queue.name, binding.exchange, binding.routing_key)

        try:
            await self._ask(build)
        except ChannelClosed as why:
            raise _meaning(why, queue.name) from why
        return created

    async def delete(self, queue: str) -> None:
        try:
            await self._ask(lambda channel: channel.call(channel.raw.queue_delete, queue))
        except ChannelClosed as why:
            if why.code != 404:
                raise _meaning(why, queue) from why

    async def state(self, queue: str) -> QueueState | None:
        try:
            frame = await self._ask(lambda channel: channel.call(channel.raw.queue_declare, queue, passive=True))
        except ChannelClosed as why:
            if why.code == 404:
                return None
            raise _meaning(why, queue) from why
        return QueueState(frame.method.message_count, frame.method.consumer_count)

    # -- publishing

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        todo: Sequence[Outgoing] = list(messages)
        unroutable: list[Outgoing] = []
        delay_s = FIRST_DELAY_S / 2
        deadline = self._deadline()
        while todo:
            link, publisher = await self._connected(deadline)
            batch = await self._send(link, publisher, todo)
            unroutable += batch.unroutable
            left = batch.left()
            if len(left) < len(todo):
                deadline = self._deadline()
            todo = left
            if batch.refused:
                if asyncio.get_running_loop().time() > deadline:
                    raise Outage("the broker refuses messages for lack of memory", what="The broker")
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, 2.0)
        if unroutable:
            first = unroutable[0]
            raise NoSuchQueue(f"no queue for {first.exchange!r} {first.routing_key!r}")

    async def _send(self, link: Link, publisher: Publisher, todo: Sequence[Outgoing]) -> Batch:
        """What became of them. The broker closes a channel for one message of somebody: all who were on it try
        again, each alone, so that only the culprit is told.
        """
        batch = Batch(todo)
        try:
            await self._unless_blocked(link, publisher.send(batch))
        except LinkLost:
            return batch
        except ChannelClosed:
            alone = Batch(batch.left())
            alone.unroutable = batch.unroutable
            await self._send_alone(link, publisher, alone)
            return alone
        return batch

    async def _send_alone(self, link: Link, dead: Publisher, batch: Batch) -> None:
        try:
            fresh = await Publisher.open(link)
            if self._publisher is dead:
                self._publisher = fresh
                fresh = await Publisher.open(link)
            await self._unless_blocked(link, fresh.send(batch))
            fresh.close()
        except LinkLost:
            return
        except ChannelClosed as why:
            raise _meaning(why, "") from why

    async def _unless_blocked(self, link: Link, sending: Awaitable[None]) -> None:
        """A broker out of memory stops reading; then patience counts as if it were away."""
        waiting = asyncio.ensure_future(sending)
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=self._patience_s)
                if done:
                    return waiting.result()
                if link.blocked:
                    raise Outage("the broker is blocked", what="The broker")
        finally:
            waiting.cancel()

    # -- consuming

    async def consume(
        self, queue: str, *, ahead: int = 0, ahead_bytes: int = 0, exclusive: bool = False
    ) -> AsyncGenerator[list[Delivery], None]:
        again = False
        while True:
            reader = await self._subscribed(queue, Window(ahead, ahead_bytes), exclusive=exclusive, again=again)
            if reader is None:
                return
            again = True
            try:
                while not self._closed:
                    deliveries = await reader.arrived()
                    if deliveries:
                        yield deliveries
            except LinkLost:
                continue
            except ChannelClosed as why:
                log.warning("%s: the broker ended the reading of %s: %s", self._label, queue, why)
                continue
            finally:
                reader.stop()

    async def _subscribed(self, queue: str, window: Window, *, exclusive: bool, again: bool) -> Reader | None:
        """A reader on the live connection, None when we are closed. A queue that was there before may be on its
        way back, and a reader that excludes us may be our own lost connection: both get time.
        """
        since: float | None = None
        while not self._closed:
            try:
                link, _ = await self._connected(None)
                reader = Reader(link, queue, window)
                await reader.start(exclusive=exclusive)
            except LinkLost:
                since = None
                continue
            except ChannelClosed as why:
                now = asyncio.get_running_loop().time()
                since = since or now
                patience_s = self._patience_with(why, again=again)
                if now - since >= patience_s:
                    raise _meaning(why, queue) from why
                await asyncio.sleep(FIRST_DELAY_S)
                continue
            except _Closed:
                return None
            self._readers = {other for other in self._readers if other.alive}
            self._readers.add(reader)
            return reader
        return None

    def _patience_with(self, why: ChannelClosed, *, again: bool) -> float:
        if why.code == 404:
            return self._patience_s if again else 0
        if "exclusive" in why.text:
            return self._patience_s + 2 * HEARTBEAT_S if again else self._patience_s
        return 0


def _meaning(why: ChannelClosed, queue: str) -> MusterError:
    """The error of ours for the code of the protocol."""
    if why.code == 404:
        return NoSuchQueue(why.text)
    if why.code == 405 or "exclusive" in why.text:
        return Conflict(why.text, why=f"Queue {queue} is read by somebody else.")
    if why.code == 403:
        return NotPermitted(why.text, why="the broker refused it")
    if why.code == 406:
        return Conflict(why.text, why=f"Queue {queue} exists and is different.")
    return Outage(str(why), what="The broker")
