"""Keep-alive HTTP on the standard library: one connection per thread, no request sent twice by accident."""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Final
from urllib.parse import SplitResult, urlsplit

from muster.errors import ConfigInvalid

IDLE_LIMIT_S: Final = 55.0  # middle boxes forget quiet connections after a minute
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever the status."""

    status: int
    body: bytes
    headers: Message = field(default_factory=Message)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds the server asked us to wait; dates are not understood, as nobody sends them here."""
        value = (self.headers.get("retry-after") or "").strip()
        return float(value) if value.isascii() and value.isdigit() else None


class NotSent(ConnectionError):
    """Nothing of the request can have reached the server: repeating it is safe whatever it was."""


class Lost(ConnectionError):
    """The request went out and no answer came: it may or may not have been carried out."""


class _Line:
    """One thread's connection; closed when the thread or the client is gone."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.pid = os.getpid()
        self.used_at_s = time.monotonic()

    def __del__(self) -> None:
        self.connection.close()

    def still_good(self) -> bool:
        """A server that closed while we were quiet has made the socket readable; asking first saves a lost request."""
        if self.pid != os.getpid() or time.monotonic() - self.used_at_s > IDLE_LIMIT_S:
            return False
        if self.connection.sock is None:
            return False
        poll = select.poll()  # select() cannot watch descriptors over 1023
        poll.register(self.connection.sock, select.POLLIN)
        return not poll.poll(0)


class Http:
    """One origin. Safe to use from many threads, and after a fork."""

    def __init__(self, url: str, timeout_s: float = 60) -> None:
        self.url = url.rstrip("/")
        self._parts = _parts(self.url)
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._proxy = _proxy_for(self._parts)
        self._mine = threading.local()

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """One request, one answer; NotSent or Lost when there is none."""
        line = self._line()
        try:
            line.connection.request(method, self._target(path), body, dict(headers))
            response = line.connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise Lost(_reason(problem)) from problem
        line.used_at_s = time.monotonic()
        if response.will_close:
            self.close()
        return Answer(response.status, data, response.headers)

    def close(self) -> None:
        """Close this thread's connection; the next request opens another."""
        line: _Line | None = getattr(self._mine, "line", None)
        self._mine.line = None
        if line is not None:
            line.connection.close()

    def _line(self) -> _Line:
        line: _Line | None = getattr(self._mine, "line", None)
        if line is not None and line.still_good():
            return line
        self.close()
        line = _Line(self._new())
        try:
            line.connection.connect()
        except (OSError, http.client.HTTPException) as problem:
            raise NotSent(_reason(problem)) from problem
        line.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._mine.line = line
        return line

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        via = self._proxy
        if self._tls is not None:
            if via is None:
                return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
            tunnel = http.client.HTTPSConnection(
                via.hostname or "", via.port or 3128, timeout=self._timeout_s, context=self._tls
            )
            tunnel.set_tunnel(host, port or 443)
            return tunnel
        if via is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPConnection(via.hostname or "", via.port or 3128, timeout=self._timeout_s)

    def _target(self, path: str) -> str:
        whole = self._parts.path.rstrip("/") + path
        if self._proxy is not None and self._tls is None:
            return f"{self._parts.scheme}://{self._parts.netloc}{whole}"
        return whole


def is_loopback(host: str | None) -> bool:
    return host in _LOOPBACK


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigInvalid(file="MUSTER_SERVICE_URL", why=f"{url!r} is no address such as https://muster.example.org")
    return parts


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    """The proxy that the environment names, as every other program of the site uses it; never for loopback."""
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urlsplit(proxy if "//" in proxy else f"http://{proxy}")


def _reason(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {problem.verify_message}"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return str(problem) or type(problem).__name__
