"""One live AMQP connection and its channels, as awaitables over pika's callbacks. It never reconnects."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from muster.errors import CredentialsRefused

if TYPE_CHECKING:
    from pika.adapters.asyncio_connection import AsyncioConnection

HEARTBEAT_S = 20
CONNECT_S = 20
CLOSE_S = 5


class LinkLost(Exception):
    """The connection is gone, or never came."""


class ChannelClosed(Exception):
    """The broker closed one channel: the code and text say why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Channel:
    """One channel. Whoever waits on it when it closes gets the reason."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.ended: Exception | None = None
        self.on_end: Callable[[Exception], None] | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        raw.add_on_close_callback(self._closed)

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A method that the broker answers; its answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        try:
            if self.ended is not None:
                raise self.ended
            self.now(method, *args, callback=partial(_fulfil, answer), **kwargs)
            return await answer
        finally:
            self._waiting.discard(answer)

    def now(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A method without an answer."""
        from pika.exceptions import AMQPError

        try:
            return method(*args, **kwargs)
        except AMQPError as why:
            raise self.ended or LinkLost(repr(why)) from why

    def close(self) -> None:
        """Politely, in the background."""
        if self.ended is None and self.raw.is_open:
            self.raw.close()

    def _closed(self, _raw: object, reason: Exception) -> None:
        from pika.exceptions import ChannelClosed as PikaChannelClosed

        if isinstance(reason, PikaChannelClosed):
            self.ended = ChannelClosed(reason.reply_code, reason.reply_text)
        else:
            self.ended = LinkLost(repr(reason))
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(self.ended)
        if self.on_end is not None:
            self.on_end(self.ended)


class Link:
    """Made by `connect`. `lost` is set when it is gone, for whatever reason."""

    def __init__(self, raw: AsyncioConnection) -> None:
        self.raw = raw
        self.lost = asyncio.Event()
        self.blocked = False
        self.why = ""
        raw.add_on_close_callback(self._closed)
        raw.add_on_connection_blocked_callback(lambda *_: self._block(True))
        raw.add_on_connection_unblocked_callback(lambda *_: self._block(False))

    def _block(self, blocked: bool) -> None:
        self.blocked = blocked

    def _closed(self, _raw: object, reason: Exception) -> None:
        self.why = _plainly(reason)
        self.lost.set()

    async def channel(self) -> Channel:
        """A new one."""
        from pika.exceptions import AMQPError

        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            raw: Any = self.raw.channel(on_open_callback=partial(_fulfil, opened))
        except AMQPError as why:
            raise LinkLost(repr(why)) from why
        channel = Channel(raw)
        channel._waiting.add(opened)  # noqa: SLF001 - the same module: opening is its first answer
        try:
            await opened
        finally:
            channel._waiting.discard(opened)  # noqa: SLF001
        return channel

    async def close(self) -> None:
        """Politely, but not for ever."""
        from pika.exceptions import AMQPError

        try:
            self.raw.close()
        except AMQPError:
            return  # closed or closing already
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.lost.wait()
        except TimeoutError:
            self.raw._terminate_stream(None)  # noqa: SLF001 - pika has no public way to hang up on a dead peer


def _fulfil(waiting: asyncio.Future[Any], answer: object) -> None:
    """Whoever waited may have been cancelled."""
    if not waiting.done():
        waiting.set_result(answer)


def _parameters(url: str, label: str) -> Any:
    import pika

    parameters = pika.URLParameters(url)
    given = parse_qs(urlsplit(url).query)
    if "heartbeat" not in given:
        parameters.heartbeat = HEARTBEAT_S
    if "connection_attempts" not in given:
        parameters.connection_attempts = 1  # trying again is ours, with fresh credentials
    parameters.stack_timeout = CONNECT_S
    parameters.client_properties = {"product": "Muster", "connection_name": label} if label else {"product": "Muster"}
    return parameters


def _place(url: str) -> str:
    """Host and port, and nothing secret."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"


def _plainly(reason: BaseException) -> str:
    """The innermost cause in a few words."""
    inside = [*reason.args, getattr(reason, "exception", None), *getattr(reason, "exceptions", ())]
    causes = [cause for cause in inside if isinstance(cause, BaseException)]
    if causes:
        return _plainly(causes[-1])
    if isinstance(reason, socket.gaierror) or not isinstance(reason, OSError):
        return str(reason) or type(reason).__name__
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return os.strerror(reason.errno).lower() if reason.errno else repr(reason)


def _quiet_pika() -> None:
    """It logs errors that it also raises, and it would do so on a user's terminal; a level that was set stays."""
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


async def connect(url: str, label: str) -> Link:
    """An open connection; CredentialsRefused when the broker knows us no more, LinkLost when it cannot be reached."""
    from pika.adapters.asyncio_connection import AsyncioConnection

    _quiet_pika()
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Link] = loop.create_future()

    def failed(_raw: object, reason: BaseException) -> None:
        if opened.done():
            return
        text = repr(reason)  # pika wraps the cause several times, its text is all that survives
        refused = CredentialsRefused(text) if "(403)" in text else None
        opened.set_exception(refused or LinkLost(f"{_place(url)}: {_plainly(reason)}"))

    raw = AsyncioConnection(
        _parameters(url, label),
        on_open_callback=lambda raw: _fulfil(opened, Link(raw)),
        on_open_error_callback=failed,
        custom_ioloop=loop,
    )
    try:
        return await opened
    except asyncio.CancelledError:
        if not raw.is_closed and not raw.is_closing:
            raw.close()
        raise
