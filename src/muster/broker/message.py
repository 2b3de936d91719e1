"""A message, and its place in a queue."""

from __future__ import annotations

from collections.abc import Callable


class Promise:
    """A publisher's confirm that waits until every reader who must keep the message has acknowledged it."""

    __slots__ = ("_done", "_waiting")

    def __init__(self, waiting: int, done: Callable[[bool], None]) -> None:
        self._waiting = waiting
        self._done: Callable[[bool], None] | None = done

    def settle(self, kept: bool) -> None:
        """One reader kept it, or it was thrown away: then the publisher learns that at once."""
        self._waiting -= 1
        done = self._done
        if done is not None and (not kept or self._waiting == 0):
            self._done = None
            done(kept)


class Message:
    """Raw header and body as they came; `route` is exchange and routing key in wire form."""

    __slots__ = ("body", "exchange", "header", "promise", "queued", "route", "routing_key", "size")

    def __init__(self, exchange: str, routing_key: str, header: bytes, body: bytes) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        exchange_raw, key_raw = exchange.encode(), routing_key.encode()
        self.route = b"%c%b%c%b" % (len(exchange_raw), exchange_raw, len(key_raw), key_raw)
        self.header = header
        self.body = body
        self.size = len(body) + len(header) + 512  # 512: what Python itself needs for a queued message, roughly
        self.queued = 0  # in how many queues it is
        self.promise: Promise | None = None


class Entry:
    """One message in one queue; `position` keeps the order when it comes back."""

    __slots__ = ("message", "position", "redelivered")

    def __init__(self, message: Message, position: int) -> None:
        self.message = message
        self.position = position
        self.redelivered = False
