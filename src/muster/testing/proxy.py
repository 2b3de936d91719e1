"""A TCP proxy that cuts: for tests of what happens when a network does."""

from __future__ import annotations

import asyncio
import contextlib


class CuttingProxy:
    """Stands before a server. Cuts on demand, after a number of bytes, or swallows everything in silence."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._pairs: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None
        self._cut_after_bytes: int | None = None
        self._silent = False
        self.accepted = 0
        self.refusing = False
        self.passed_bytes = 0

    async def start(self) -> tuple[str, int]:
        """Listen; the address for the client."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        pairs = list(self._pairs)
        for task in pairs:
            task.cancel()
        if pairs:
            await asyncio.wait(pairs)
        if self._server is not None:
            await self._server.wait_closed()

    def cut(self) -> int:
        """End every connection now, without a farewell; how many there were."""
        for client, server in self._pairs.values():
            client.transport.abort()
            server.transport.abort()
        return len(self._pairs)

    def cut_after(self, limit_bytes: int) -> None:
        """End every connection once so many more bytes have passed, likely in the middle of a frame."""
        self._cut_after_bytes = limit_bytes

    def freeze(self, *, silent: bool = True) -> None:
        """Pass nothing on, close nothing: a network that swallows."""
        self._silent = silent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            writer.transport.abort()
            return
        try:
            behind, towards = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._pairs[task] = (writer, towards)
        try:
            await asyncio.gather(self._pump(reader, towards), self._pump(behind, writer))
        finally:
            del self._pairs[task]
            for end in (writer, towards):
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # the other direction was cut
            while data := await source.read(65_536):
                if self._silent:
                    continue
                sink.write(self._allowed(data))
                self.passed_bytes += len(data)
                await sink.drain()
                if self._cut_after_bytes == 0:
                    self._cut_after_bytes = None
                    self.cut()
        with contextlib.suppress(OSError, RuntimeError):
            sink.close()

    def _allowed(self, data: bytes) -> bytes:
        if self._cut_after_bytes is None:
            return data
        part = data[: self._cut_after_bytes]
        self._cut_after_bytes -= len(part)
        return part
