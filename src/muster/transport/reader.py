"""Reading one queue over one channel, until either is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.errors import NoSuchQueue
from muster.transport.contract import Delivery
from muster.transport.link import Channel, ChannelClosed, Link, LinkLost

_LARGEST_PREFETCH = 65_535


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be unacknowledged at a time; 0 is no bound."""

    count: int = 0
    size_bytes: int = 0


class AmqpDelivery:
    """A message, and the channel on which it must be settled."""

    __slots__ = (
        "_reader",
        "_tag",
        "body",
        "content_type",
        "exchange",
        "headers",
        "redelivered",
        "routing_key",
        "timestamp_s",
    )

    def __init__(self, reader: Reader, method: Any, properties: Any, body: bytes) -> None:
        self._reader = reader
        self._tag: int = method.delivery_tag
        self.body = body
        self.exchange: str = method.exchange
        self.routing_key: str = method.routing_key
        self.redelivered: bool = method.redelivered
        self.content_type: str | None = properties.content_type or None
        self.headers: Mapping[str, Any] = properties.headers or {}
        self.timestamp_s: int | None = properties.timestamp

    def ack(self) -> None:
        self._reader.ack(self._tag)

    def requeue(self) -> None:
        self._reader.requeue(self._tag)


class Reader:
    """A consumer. Acknowledgements leave at the end of the loop's turn, as few frames as can be.

    The protocol counts messages, not bytes (RabbitMQ refuses a prefetch size). So once there are too many bytes the
    consumer is replaced by one that is given a single message at a time: a queue without one would look
    unread.
    """

    def __init__(self, link: Link, queue: str, window: Window) -> None:
        self.queue = queue
        self._window = window
        self._how: dict[str, Any] = {}
        self._narrow = False
        self._link = link
        self._channel: Channel | None = None
        self._tag = ""
        self._open: dict[int, int] = {}  # delivery tag -> bytes
        self._open_bytes = 0
        self._lowest = 1  # no delivery tag below is open
        self._highest = 0
        self._acked: list[int] = []
        self._flush_due = False
        self._arrived: list[Delivery] = []
        self._wake = asyncio.Event()
        self._ended: Exception | None = None
        self._stopped = False

    async def start(self, *, exclusive: bool) -> None:
        """Subscribe; ChannelClosed says why not."""
        self._how = {"exclusive": exclusive}
        channel = self._channel = await self._link.channel()
        channel.on_end = self._end
        channel.raw.add_on_cancel_callback(lambda _: self._end(NoSuchQueue(f"queue {self.queue!r} was deleted")))
        if self._window.count:
            await channel.call(channel.raw.basic_qos, prefetch_count=self._prefetch())
        await channel.call(self._subscribe)

    def _prefetch(self) -> int:
        return 1 if self._narrow else min(self._window.count, _LARGEST_PREFETCH)

    def _subscribe(self, **how: Any) -> None:
        if self._channel is not None:
            self._tag = self._channel.raw.basic_consume(self.queue, self._on_message, **self._how, **how)

    def _on_message(self, _channel: object, method: Any, properties: Any, body: bytes) -> None:
        self._highest = method.delivery_tag
        self._open[self._highest] = len(body)
        self._open_bytes += len(body)
        self._arrived.append(AmqpDelivery(self, method, properties, body))
        self._wake.set()
        if not self._narrow and self._window.size_bytes and self._open_bytes >= self._window.size_bytes:
            self._subscribe_again(narrow=True)

    def _subscribe_again(self, *, narrow: bool) -> None:
        """With another prefetch. What is on its way to the old consumer goes back to the queue: pika rejects it."""
        channel = self._channel
        if channel is None or channel.ended is not None or self._stopped:
            return
        self._narrow = narrow
        try:
            channel.now(channel.raw.basic_cancel, self._tag)
            channel.now(channel.raw.basic_qos, prefetch_count=self._prefetch())
            channel.now(self._subscribe)
        except (LinkLost, ChannelClosed):
            return  # whoever waits for arrivals hears why

    def _close_tag(self, tag: int) -> bool:
        """Whether it was open: settled before, or of a connection that is gone, it comes again."""
        size = self._open.pop(tag, None)
        if size is None:
            return False
        self._open_bytes -= size
        if self._narrow and self._open_bytes < self._window.size_bytes // 2:
            asyncio.get_running_loop().call_soon(self._widen)
        return True

    def _widen(self) -> None:
        if self._narrow:
            self._subscribe_again(narrow=False)

    def _end(self, why: Exception) -> None:
        if self._ended is None:
            self._ended = why
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether something may still be acknowledged on it."""
        return self._channel is not None and self._channel.ended is None

    def wake(self) -> None:
        self._wake.set()

    async def arrived(self) -> list[Delivery]:
        """What queued up; the reason once there is no more to come. Empty after `wake`."""
        if not self._arrived and self._ended is not None:
            raise self._ended
        await self._wake.wait()
        self._wake.clear()
        deliveries, self._arrived = self._arrived, []
        if not deliveries and self._ended is not None:
            raise self._ended
        return deliveries

    def ack(self, tag: int) -> None:
        if not self._close_tag(tag):
            return
        self._acked.append(tag)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def requeue(self, tag: int) -> None:
        if not self._close_tag(tag):
            return
        self._settle("basic_nack", tag, requeue=True)

    def flush(self) -> None:
        """Send the acknowledgements: one for all that has no gap before it, the others one by one."""
        self._flush_due = False
        acked, self._acked = self._acked, []
        while self._lowest <= self._highest and self._lowest not in self._open:
            self._lowest += 1
        whole = [tag for tag in acked if tag < self._lowest]
        if whole:
            self._settle("basic_ack", max(whole), multiple=True)
        for tag in acked:
            if tag >= self._lowest:
                self._settle("basic_ack", tag, multiple=False)
        self._close_when_done()

    def _settle(self, method: str, tag: int, **how: bool) -> None:
        channel = self._channel
        if channel is None or channel.ended is not None:
            return
        try:
            channel.now(channel.raw.basic_ack if method == "basic_ack" else channel.raw.basic_nack, tag, **how)
        except (LinkLost, ChannelClosed):
            return  # it comes again, on the next connection
        self._close_when_done()

    def stop(self) -> None:
        """No more arrivals: what nobody has seen goes back, what was handed out can still be acknowledged."""
        self._stopped = True
        channel = self._channel
        if channel is None or channel.ended is not None:
            return
        try:
            if self._tag:
                channel.now(channel.raw.basic_cancel, self._tag)
        except (LinkLost, ChannelClosed):
            return
        unseen, self._arrived = self._arrived, []
        for delivery in unseen:
            delivery.requeue()
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._stopped and not self._open and not self._acked and self._channel is not None:
            self._channel.close()
