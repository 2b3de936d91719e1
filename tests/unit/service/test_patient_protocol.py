"""What a stranger who is slow, endless or deaf can hold of the service: nothing for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from muster.service.web import PatientProtocol

BIG = b"x" * (32 * 1024 * 1024)


class Hasty(PatientProtocol):
    look_s = 0.05
    head_s = 0.3
    body_grace_s = 0.3
    unread_s = 0.3


async def application(scope, receive, send) -> None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = BIG if scope["path"] == "/big" else str(len(body)).encode()
    head = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, http=Hasty, ws="none", lifespan="off", log_config=None, timeout_keep_alive=30)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve([listening]))
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = server.force_exit = True
        await running
        listening.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server ends the connection, which it must."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize(
    "opening",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"],
)
async def test_a_request_that_does_not_come_ends_the_connection(opening: bytes) -> None:
    async with serving() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(opening)
        await ended(reader)
        writer.close()


async def test_a_drop_now_and_then_does_not_keep_a_connection() -> None:
    async with serving() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"a: b\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        await ended(reader)
        dripping.cancel()
        writer.close()


@pytest.mark.parametrize("endless", [b"a" * 65536, b"name: value\r\n" * 5000])
async def test_a_head_that_does_not_end_is_cut_off(endless: bytes) -> None:
    async with serving() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nlong: ")
        sent = 0
        try:
            async with asyncio.timeout(5):
                while sent < 64 * 1024 * 1024:
                    writer.write(endless)
                    await writer.drain()
                    sent += len(endless)
        except ConnectionError:
            pass
        assert sent < 32 * 1024 * 1024
        assert b" 200 " not in await ended(reader)
        writer.close()


async def test_an_answer_that_nobody_reads_is_dropped() -> None:
    async with serving() as (host, port):
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.read(1), 5)
        await asyncio.sleep(1)  # the rule is about time: the peer reads nothing for longer than is allowed
        assert len(await ended(reader)) < len(BIG)
        writer.close()


async def test_who_sends_whole_requests_keeps_the_connection_and_its_bodies_may_be_large() -> None:
    async with serving() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        for size in (0, 10, 3_000_000, 5):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size)
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(len(str(size))) == str(size).encode()
            await asyncio.sleep(0.5)  # between requests nobody is hurried
        writer.close()
