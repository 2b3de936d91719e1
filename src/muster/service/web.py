"""HTTP for strangers: nobody keeps a connection, or memory, by being slow or by never ending a request.

uvicorn bounds what happens between two requests and leaves the rest to a proxy in front; there may be none.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

_MOST_HEADERS = 200


class PatientProtocol(HttpToolsProtocol):
    """Give the class to uvicorn as `http`. A subclass may change the numbers."""

    look_s: ClassVar[float] = 5
    head_s: ClassVar[float] = 20  # from the first moment, or the end of the request before, if bytes came since
    head_bytes: ClassVar[int] = 64 * 1024
    body_grace_s: ClassVar[float] = 30
    body_least_bytes_per_s: ClassVar[int] = 4096
    unread_s: ClassVar[float] = 60  # an answer that the peer does not read
    most_connections: ClassVar[int] = 4096

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._clock = asyncio.get_running_loop()
        self._head_since_s: float | None = self._clock.time()
        self._head_bytes = self._headers = 0
        self._body_since_s: float | None = None
        self._body_bytes = 0
        self._unsent_bytes, self._moved_s = 0, self._clock.time()
        super().connection_made(transport)
        self._look_timer = self._clock.call_later(self.look_s, self._look)
        if len(self.connections) > self.most_connections:
            log.warning("a connection of %s was refused: %d are open", self.client, len(self.connections))
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before_s = self._head_since_s
        if before_s is None and self._body_since_s is None:  # idle until now
            self._head_since_s = self._clock.time()
        super().data_received(data)
        if before_s is None or self._head_since_s is not before_s:
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.head_bytes:
            self._refuse("a head that does not end")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since_s = self._head_since_s or self._clock.time()
        self._head_bytes = self._headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > _MOST_HEADERS:
            raise ValueError("too many headers")  # the parser turns it into a 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_since_s, self._body_since_s = None, self._clock.time()
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since_s = None
        super().on_message_complete()

    def _look(self) -> None:
        now_s = self._clock.time()
        self._look_timer = self._clock.call_later(self.look_s, self._look)
        if self._head_since_s is not None and now_s - self._head_since_s > self.head_s:
            self._refuse("no request")
        elif self._body_is_slow(now_s):
            self._refuse("a body that does not come")
        elif self._unread(now_s):
            self._refuse("nobody reads the answer")

    def _body_is_slow(self, now_s: float) -> bool:
        if self._body_since_s is None:
            return False
        if self.flow.read_paused:  # it is we who do not read
            self._body_since_s = now_s - self._body_bytes / self.body_least_bytes_per_s
            return False
        allowed_s = self.body_grace_s + self._body_bytes / self.body_least_bytes_per_s
        return now_s - self._body_since_s > allowed_s

    def _unread(self, now_s: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent_bytes:
            self._moved_s = now_s
        self._unsent_bytes = unsent
        return now_s - self._moved_s > self.unread_s

    def _refuse(self, why: str) -> None:
        peer: Any = self.client
        log.info("a connection of %s was cut off: %s", peer, why)
        self.transport.abort()
