"""One channel: what it publishes, what it was given and has not settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands
from pamqp.base import Frame

from muster.broker import faults, frames
from muster.broker.message import Entry, Message
from muster.broker.queue import Queue

if TYPE_CHECKING:
    from muster.broker.connection import Connection

_Given = tuple[Queue, Entry, "ChannelConsumer | None"]


class ChannelConsumer:
    """A subscription of a channel to a queue."""

    def __init__(self, channel: Channel, tag: str, queue: Queue, *, no_ack: bool, exclusive: bool) -> None:
        self.channel = channel
        self.tag = tag
        self.short_tag = frames.short(tag)
        self.queue = queue
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = channel.prefetch
        self.unacked = 0

    def can_take(self) -> bool:
        channel = self.channel
        if not channel.flowing or not channel.connection.has_room():
            return False
        if self.no_ack:
            return True
        if self.prefetch and self.unacked >= self.prefetch:
            return False
        return not channel.channel_prefetch or len(channel.unacked) < channel.channel_prefetch

    def take(self, entry: Entry) -> None:
        channel = self.channel
        tag = channel.give(self.queue, entry, self)
        channel.connection.send(frames.deliver(channel.number, self.short_tag, tag, entry.redelivered, entry.message))
        channel.send_content(entry.message)

    def queue_gone(self) -> None:
        channel = self.channel
        channel.consumers.pop(self.tag, None)
        if channel.connection.notices_cancel:
            channel.send(commands.Basic.Cancel(self.tag, nowait=True))


class _Incoming:
    """A message whose frames are still arriving."""

    def __init__(self, method: frames.Publish) -> None:
        self.method = method
        self.header: bytes | None = None
        self.body = bytearray()  # and no list: pieces of one byte each would cost many times their size
        self.missing = 0
        self.size = 0


class Channel:
    """The protocol's unit of order: commands of one channel are answered in turn."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.consumers: dict[str, ChannelConsumer] = {}
        self.unacked: dict[int, _Given] = {}
        self.prefetch = 0
        self.channel_prefetch = 0
        self.flowing = True
        self.closing = False  # our close is under way; everything but its answer is ignored
        self.last_queue = ""
        self.confirming = False
        self._last_tag = 0
        self._lowest_tag = 1  # no tag below is unacknowledged
        self._incoming: _Incoming | None = None
        self._published = 0
        self._lowest_unconfirmed = 1
        self._unconfirmed: set[int] = set()
        self._kept: list[int] = []  # to be confirmed at the next flush

    # -- towards the peer

    def send(self, method: Frame) -> None:
        self.connection.send(frames.command(self.number, method))

    def send_content(self, message: Message) -> None:
        for part in frames.content(self.number, message, self.connection.frame_bytes):
            self.connection.send(part)

    def give(self, queue: Queue, entry: Entry, consumer: ChannelConsumer | None, *, no_ack: bool = False) -> int:
        """The delivery tag under which the peer will settle it."""
        self._last_tag += 1
        if no_ack or (consumer is not None and consumer.no_ack):
            queue.settle(entry)
            return self._last_tag
        self.unacked[self._last_tag] = (queue, entry, consumer)
        if consumer is not None:
            consumer.unacked += 1
        return self._last_tag

    # -- settling

    def take_back(self, tag: int, *, multiple: bool) -> list[_Given]:
        """What the peer settles with this tag; 406 for a tag that is not open."""
        if not multiple:
            found = self.unacked.pop(tag, None)
            if found is None:
                raise faults.precondition(f"unknown delivery tag {tag}")
            settled = [found]
        else:
            last = self._last_tag if tag == 0 else tag
            if last > self._last_tag:
                raise faults.precondition(f"unknown delivery tag {tag}")
            span = range(self._lowest_tag, last + 1)
            settled = [given for given in (self.unacked.pop(number, None) for number in span) if given is not None]
            if not settled and tag != 0:
                raise faults.precondition(f"unknown delivery tag {tag}")
            self._lowest_tag = last + 1
        for _, _, consumer in settled:
            if consumer is not None:
                consumer.unacked -= 1
        return settled

    def ack(self, tag: int, *, multiple: bool) -> None:
        settled = self.take_back(tag, multiple=multiple)
        for queue, entry, _ in settled:
            queue.settle(entry)
        self._go_on({queue for queue, _, _ in settled})

    def reject(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        settled = self.take_back(tag, multiple=multiple)
        if requeue:
            self._go_on(_put_back(settled))
            return
        for queue, entry, _ in settled:
            queue.settle(entry, kept=False)
        self._go_on({queue for queue, _, _ in settled})

    def recover(self) -> None:
        """Everything unsettled goes back to its queue."""
        if self.unacked:
            self._go_on(_put_back(self.take_back(0, multiple=True)))

    def _go_on(self, queues: set[Queue]) -> None:
        if self.channel_prefetch:
            queues |= {consumer.queue for consumer in self.consumers.values()}
        for queue in queues:
            queue.pump()

    def pump(self) -> None:
        """There is room again: for every queue this channel reads."""
        for queue in {consumer.queue for consumer in self.consumers.values()}:
            queue.pump()

    def cancel(self, tag: str) -> None:
        consumer = self.consumers.pop(tag, None)
        if consumer is None:
            return
        queue = consumer.queue
        queue.remove(consumer)
        if queue.auto_delete and not queue.consumers:
            self.connection.topology.delete_queue(queue)
        else:
            queue.pump()

    def end(self) -> None:
        """Closed: consumers go, what was unsettled returns to its queues."""
        self.closing = True
        self._drop_incoming()
        self._unconfirmed.clear()
        self._kept.clear()
        for tag in list(self.consumers):
            self.cancel(tag)
        given = list(self.unacked.values())
        self.unacked.clear()
        for queue in _put_back(given):
            queue.pump()

    # -- publishing

    @property
    def mid_message(self) -> bool:
        return self._incoming is not None

    def begin(self, method: frames.Publish) -> None:
        """basic.publish. Permission is asked before existence: a refusal must not tell what exists."""
        if self._incoming is not None:
            raise faults.unexpected_frame("expected content, got basic.publish")
        if method.immediate:
            raise faults.not_implemented("immediate=true")
        self.connection.require("write", "exchange", method.exchange)
        self.connection.require_topic(method.exchange, method.routing_key)
        if method.exchange:
            exchange = self.connection.topology.exchange(method.exchange)
            if exchange.internal:
                raise faults.ChannelFault(
                    403, f"ACCESS_REFUSED - cannot publish to internal exchange '{exchange.name}' in vhost '/'"
                )
        self._incoming = _Incoming(method)

    def header(self, payload: bytes) -> None:
        incoming = self._incoming
        if incoming is None or incoming.header is not None:
            raise faults.unexpected_frame("content header")
        size = frames.body_size(payload)
        if size > self.connection.limits.message_bytes:
            raise faults.precondition(
                f"message size {size} is larger than configured max size {self.connection.limits.message_bytes}"
            )
        claimed = frames.claims_user_id(payload)
        if claimed is not None and claimed != self.connection.username:
            raise faults.precondition(
                f"user_id property set to '{claimed}' but authenticated user was '{self.connection.username}'"
            )
        self.connection.reserve(size)
        incoming.header, incoming.missing, incoming.size = payload, size, size
        if not size:
            self._complete(incoming, payload, b"")

    def body(self, payload: bytes) -> None:
        incoming = self._incoming
        if incoming is None or incoming.header is None:
            raise faults.unexpected_frame("content body")
        incoming.missing -= len(payload)
        if incoming.missing < 0:
            raise faults.ConnectionFault(501, "FRAME_ERROR - more body than announced")
        if not incoming.missing and not incoming.body:
            self._complete(incoming, incoming.header, payload)  # the usual case: one frame
            return
        incoming.body += payload
        if not incoming.missing:
            self._complete(incoming, incoming.header, bytes(incoming.body))

    def _drop_incoming(self) -> None:
        if self._incoming is not None:
            self.connection.reserve(-self._incoming.size)
            self._incoming = None

    def _complete(self, incoming: _Incoming, header: bytes, body: bytes) -> None:
        self._drop_incoming()
        method = incoming.method
        message = Message(method.exchange, method.routing_key, header, body)
        topology = self.connection.topology
        queues = topology.route(method.exchange, method.routing_key)
        number = 0
        if self.confirming:
            self._published += 1
            number = self._published
            self._unconfirmed.add(number)
        if not queues:
            if method.mandatory:
                self.connection.send(frames.no_route(self.number, message))
                self.send_content(message)
            self._settled(number, kept=True)
            return
        if topology.full and not self.connection.hold_for_memory():
            self._refuse(number)
            return
        confirmed = (lambda kept: self._settled(number, kept=kept)) if number else None
        if topology.post(message, queues, confirmed):
            self._settled(number, kept=True)

    def _refuse(self, number: int) -> None:
        """No memory left, and this connection must go on being read, for its acknowledgements free some."""
        if not number:
            raise faults.precondition("the broker holds too many messages; nothing is lost in confirm mode")
        self._settled(number, kept=False)

    def _settled(self, number: int, *, kept: bool) -> None:
        if not number or self.closing:
            return
        self._unconfirmed.discard(number)
        if kept:
            self._kept.append(number)
            self.connection.confirm_soon(self)
        else:
            self.send(commands.Basic.Nack(number, multiple=False, requeue=False))

    def flush_confirms(self) -> None:
        """Confirm what was kept since the last time; one `multiple` for all that has no gap before it."""
        kept, self._kept = self._kept, []
        if not kept or self.closing:
            return
        while self._lowest_unconfirmed <= self._published and self._lowest_unconfirmed not in self._unconfirmed:
            self._lowest_unconfirmed += 1
        whole = [number for number in kept if number < self._lowest_unconfirmed]
        if whole:
            self.connection.send(frames.ack(self.number, max(whole), multiple=len(whole) > 1))
        for number in kept:
            if number >= self._lowest_unconfirmed:
                self.connection.send(frames.ack(self.number, number, multiple=False))


def _put_back(given: list[_Given]) -> set[Queue]:
    by_queue: dict[Queue, list[Entry]] = {}
    for queue, entry, _ in given:
        by_queue.setdefault(queue, []).append(entry)
    for queue, entries in by_queue.items():
        queue.put_back(entries)
    return set(by_queue)
