"""Publishing with confirms: many messages under way, each accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from muster.transport.contract import Outgoing
from muster.transport.link import Channel, Link


class Batch:
    """What one caller published together, and what became of it."""

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self.messages = messages
        self.open = set(range(len(messages)))  # neither confirmed nor refused yet
        self.refused: list[int] = []  # the broker had no room
        self.unroutable: list[Outgoing] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, index: int, *, kept: bool, returned: bool) -> None:
        self.open.discard(index)
        if returned:
            self.unroutable.append(self.messages[index])
        elif not kept:
            self.refused.append(index)
        if not self.open and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(why)
            self.done.exception()  # seen: who published may have given up waiting

    def left(self) -> list[Outgoing]:
        """What must be published again, in the old order."""
        return [self.messages[index] for index in sorted(self.open.union(self.refused))]


class Publisher:
    """One channel in confirm mode."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = 0  # of the last message, counted as the broker counts
        self._settled_to = 0
        self._waiting: dict[int, tuple[Batch, int]] = {}
        self._returned: set[int] = set()
        channel.on_end = self._ended

    @classmethod
    async def open(cls, link: Link) -> Self:
        channel = await link.channel()
        publisher = cls(channel)
        channel.raw.add_on_return_callback(publisher._was_returned)
        await channel.call(channel.raw.confirm_delivery, publisher._was_settled)
        return publisher

    async def send(self, batch: Batch) -> None:
        """Return when the broker has answered for every message; ChannelClosed or LinkLost when it did not."""
        from pika import BasicProperties

        if self._channel.ended is not None:
            raise self._channel.ended
        for index in sorted(batch.open):
            message = batch.messages[index]
            self._number += 1
            self._waiting[self._number] = (batch, index)
            properties = BasicProperties(
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=dict(message.headers) if message.headers else None,
                delivery_mode=2,
                message_id=str(self._number),  # tells which one came back
                timestamp=message.timestamp_s,
            )
            self._channel.now(
                self._channel.raw.basic_publish,
                message.exchange,
                message.routing_key,
                message.body,
                properties,
                mandatory=True,
            )
        if not batch.open:
            return
        await batch.done

    def close(self) -> None:
        self._channel.close()

    def _was_returned(self, _channel: object, _method: object, properties: Any, _body: bytes) -> None:
        if properties.message_id and properties.message_id.isdigit():
            self._returned.add(int(properties.message_id))

    def _was_settled(self, frame: Any) -> None:
        from pika.spec import Basic

        kept = isinstance(frame.method, Basic.Ack)
        tag: int = frame.method.delivery_tag
        numbers = range(self._settled_to + 1, tag + 1) if frame.method.multiple else range(tag, tag + 1)
        for number in numbers:
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                batch, index = waiting
                batch.settle(index, kept=kept, returned=number in self._returned)
            self._returned.discard(number)
        if frame.method.multiple:
            self._settled_to = tag

    def _ended(self, why: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for batch, _ in waiting.values():
            batch.fail(why)
