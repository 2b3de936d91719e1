"""The line to the monitor: our half of the one socket between the network and root.

Requests are a verb, a number and bytes; answers and events are JSON. Descriptors travel beside them.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
from collections.abc import AsyncIterator
from itertools import count

import msgspec

from muster.errors import Outage

_LIMIT_BYTES = 1024 * 1024
_FDS = 8
_PATIENCE_S = 90  # root's own deadlines are shorter
_SET_DUMPABLE = 4  # linux/prctl.h


class Hello(msgspec.Struct, kw_only=True):
    """What the monitor says first, with the descriptors of `Site`."""

    name: str
    privileged: bool
    endpoint_id: str = ""
    need_key: bool = False
    owners: str = ""
    running: list[str] = []


class Said(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An answer (it carries the request's number) or an event."""

    answer: int | None = None
    code: str = ""
    public: str = ""
    event: str = ""
    name: str = ""
    status: int = 0


class Site(msgspec.Struct, frozen=True):
    """The manager's files as root opened them: the agent itself may not even enter their directory."""

    template: str
    schema: str
    environment: str
    config: str
    opened: tuple[int, ...] = ()
    marks: tuple[tuple[int, ...], ...] = ()

    def changed(self) -> bool:
        """Whether one of the files was written to, or replaced by another one of its name."""
        return self.marks != tuple(map(_mark, self.opened))


_SAID = msgspec.json.Decoder(Said)


def receive_hello(link: socket.socket) -> tuple[Hello, Site]:
    """The first message: enters our state directory, takes over the settings, and reads the files."""
    body, fds, _, _ = socket.recv_fds(link, _LIMIT_BYTES, _FDS)
    hello = msgspec.json.decode(body, type=Hello)
    directory, variables, template, schema, environment, config = fds
    os.fchdir(directory)
    if hello.privileged:
        os.environ["MUSTER_HOME"] = "."  # the tokens are the manager's, and lie here
    for line in _read(variables).split("\0"):
        name, _, value = line.partition("=")
        if name:
            os.environ[name] = value
    files = template, schema, environment, config
    marks = tuple(map(_mark, files))  # before they are read: a change meanwhile is a change
    site = Site(_read(template), _read(schema), _read(environment), _read(config), files, marks)
    os.close(directory)
    os.close(variables)
    return hello, site


def keep_private() -> None:
    """Close this process to others of its account: no tracing, no look at its memory."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot close this process to others of its account")


def memory_file(content: bytes) -> int:
    """A file in memory that nobody can change any more, read from its beginning."""
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


class RootLink:
    """Ask root for something; hear what happened to the user endpoints."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        link.setblocking(False)
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Said]] = {}
        self._events: asyncio.Queue[Said | None] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(link, self._hear)

    async def start(self, order: bytes, seal: bytes, payload: int, log: int) -> Said:
        """Have the user endpoint of this order started; the code says how it went."""
        return await self._ask("start", seal + order, [payload, log])

    def hang_up(self) -> None:
        """No more events: whoever reads them comes to the end."""
        self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[Said]:
        """What the monitor tells by itself; ends when the monitor is gone."""
        while (said := await self._events.get()) is not None:
            yield said

    async def _ask(self, verb: str, body: bytes, fds: list[int]) -> Said:
        number = next(self._numbers)
        future: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._send(f"{verb} {number}\n".encode() + body, fds)
                return await future
        except (OSError, TimeoutError) as why:
            raise Outage(f"the monitor does not answer: {why!r}", what="The manager") from why
        finally:
            del self._waiting[number]

    async def _send(self, message: bytes, fds: list[int]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                socket.send_fds(self._link, [message], fds)
            except BlockingIOError:
                ready = asyncio.Event()
                loop.add_writer(self._link, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_writer(self._link)
            else:
                return

    def _hear(self) -> None:
        try:
            body = self._link.recv(_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            body = b""
        if not body:
            asyncio.get_running_loop().remove_reader(self._link)
            self._events.put_nowait(None)
            return
        said = _SAID.decode(body)
        waiting = self._waiting.get(said.answer) if said.answer is not None else None
        if waiting is not None and not waiting.done():
            waiting.set_result(said)
        elif said.event:
            self._events.put_nowait(said)


def _read(fd: int) -> str:
    """From the beginning, whoever read it before: the position is shared with other holders of the descriptor."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode()


def _mark(fd: int) -> tuple[int, ...]:
    found = os.fstat(fd)
    return found.st_nlink, found.st_mtime_ns, found.st_size
