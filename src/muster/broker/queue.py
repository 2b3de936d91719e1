"""A queue: what waits, who reads."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Protocol

from muster.broker import faults
from muster.broker.message import Entry, Message

_position = attrgetter("position")
MOST_CONSUMERS = 256
NOTHING = Message("", "", b"", b"")


class Consumer(Protocol):
    """Somebody who is given messages."""

    exclusive: bool

    def can_take(self) -> bool:
        """Whether it has room for one more."""

    def take(self, entry: Entry) -> None:
        """Here it is; the consumer settles it or puts it back."""

    def queue_gone(self) -> None:
        """The queue was deleted under it."""


class Queue:
    """First in, first out; what comes back takes its old place."""

    def __init__(
        self,
        name: str,
        release: Callable[[Message], None],
        *,
        durable: bool = True,
        auto_delete: bool = False,
        owner: object | None = None,
        confirm_on_ack: bool = False,
    ) -> None:
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner  # the connection of an exclusive queue
        self.confirm_on_ack = confirm_on_ack
        self.ready: deque[Entry] = deque()
        self.consumers: deque[Consumer] = deque()
        self.deleted = False
        self.held_bytes = 0  # what waits here, and what readers have not settled
        self._given: set[Entry] = set()
        self._release = release
        self._next_position = 0
        self._pumping = False

    def put(self, message: Message) -> None:
        self._next_position += 1
        self.held_bytes += message.size
        self.ready.append(Entry(message, self._next_position))

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Ready again, marked as delivered before, in the old order."""
        if self.deleted:
            return
        for entry in entries:
            entry.redelivered = True
            self._given.discard(entry)
        returned = sorted(entries, key=_position)
        if returned and self.ready and self.ready[0].position < returned[-1].position:
            self.ready = deque(heapq.merge(returned, self.ready, key=_position))
        else:
            self.ready.extendleft(reversed(returned))

    def settle(self, entry: Entry, *, kept: bool = True) -> None:
        """Done with it: acknowledged (`kept`) or thrown away."""
        if not self.deleted:  # else it was let go of with the queue
            self._forget(entry, kept)

    def _forget(self, entry: Entry, kept: bool) -> None:
        message = entry.message
        self._given.discard(entry)
        self.held_bytes -= message.size
        if self.confirm_on_ack and message.promise is not None:
            message.promise.settle(kept)
        self._release(message)

    def purge(self) -> int:
        """Throw away what is ready; how many there were."""
        thrown, self.ready = self.ready, deque()
        for entry in thrown:
            self._forget(entry, kept=False)
        return len(thrown)

    def get(self) -> Entry:
        """The first that is ready, for whoever will settle it."""
        entry = self.ready.popleft()
        self._given.add(entry)
        return entry

    def end(self) -> None:
        """Gone with everything: a reader that never settles what it has must not keep its memory either."""
        self.purge()
        self.deleted = True
        for entry in tuple(self._given):
            self._forget(entry, kept=False)
            entry.message = NOTHING

    def add(self, consumer: Consumer) -> None:
        """403 when somebody reads it exclusively, or this one would and is not alone; 406 when too many read it."""
        if len(self.consumers) >= MOST_CONSUMERS:  # each message costs a look at each of them
            raise faults.precondition(f"queue '{self.name}' has {MOST_CONSUMERS} consumers already")
        if any(other.exclusive for other in self.consumers) or (consumer.exclusive and self.consumers):
            raise faults.in_exclusive_use(self.name)
        self.consumers.append(consumer)

    def remove(self, consumer: Consumer) -> None:
        if consumer in self.consumers:
            self.consumers.remove(consumer)

    def pump(self) -> None:
        """Give out what is ready, in turn to each consumer that has room."""
        if self._pumping or not self.ready:
            return
        self._pumping = True
        try:
            refusals = 0
            while self.ready and refusals < len(self.consumers):
                consumer = self.consumers[0]
                self.consumers.rotate(-1)
                if consumer.can_take():
                    refusals = 0
                    consumer.take(self.get())
                else:
                    refusals += 1
        finally:
            self._pumping = False
