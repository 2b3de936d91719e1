"""A client that speaks AMQP frame by frame, for what a well-behaved library would never send."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import pytest
from pamqp import commands, header
from pamqp import frame as pamqp_frame
from pamqp.base import Frame

from muster.broker.limits import Limits
from muster.broker.local import LocalTransport
from muster.broker.permissions import allows, check_password
from muster.broker.server import Broker
from muster.model.account import AccountKind, BrokerAccount
from muster.transport.contract import Binding, QueueSpec
from muster.wire import topology

M = TypeVar("M", bound=Frame)
MANAGER, USER_ENDPOINT, ALICE = UUID(int=1), UUID(int=2), UUID(int=3)


def account(name: str, kind: AccountKind, subject: UUID) -> BrokerAccount:
    return BrokerAccount(name, hashlib.sha256(b"secret").digest(), kind, subject)


ACCOUNTS = {
    "manager": account("manager", AccountKind.MANAGER, MANAGER),
    "worker": account("worker", AccountKind.USER_ENDPOINT, USER_ENDPOINT),
    "alice": account("alice", AccountKind.READER, ALICE),
    "root": account("root", AccountKind.MANAGER, MANAGER),  # the test's rule lets it do everything
}


def rule(who: BrokerAccount, *rest: Any) -> bool:
    return who.username == "root" or allows(who, *rest)


async def authorise(username: str, password: str) -> BrokerAccount | None:
    return check_password(ACCOUNTS.get(username), password, 0)


class Raw:
    """One socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, channel: int, *frames: Any) -> None:
        self.writer.write(b"".join(pamqp_frame.marshal(frame, channel) for frame in frames))

    async def frame(self) -> tuple[int, int, bytes]:
        head = await self.reader.readexactly(7)
        kind, channel, size = head[0], int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:7], "big")
        payload = await self.reader.readexactly(size)
        assert await self.reader.readexactly(1) == b"\xce"
        return kind, channel, payload

    async def method(self) -> Any:
        """The next method, content and heartbeats left out."""
        async with asyncio.timeout(10):
            while True:
                kind, channel, payload = await self.frame()
                if kind == 1:
                    whole = bytes((1,)) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big")
                    return pamqp_frame.unmarshal(whole + payload + b"\xce")[2]

    async def expect(self, kind: type[M]) -> M:
        found = await self.method()
        assert isinstance(found, kind), (found.name, dict(found))
        return found

    async def log_in(self, username: str, password: str = "secret", heartbeat: int = 0, **tune: int) -> None:
        self.writer.write(b"AMQP\x00\x00\x09\x01")
        await self.expect(commands.Connection.Start)
        capabilities = {"consumer_cancel_notify": True, "connection.blocked": True}
        properties: Any = {"capabilities": {**capabilities, "authentication_failure_close": True}}
        self.send(0, commands.Connection.StartOk(properties, "PLAIN", f"\0{username}\0{password}", "en_US"))
        offer = await self.expect(commands.Connection.Tune)
        self.send(
            0,
            commands.Connection.TuneOk(
                tune.get("channels", offer.channel_max), tune.get("frame", offer.frame_max), heartbeat
            ),
            commands.Connection.Open("/"),
        )
        await self.expect(commands.Connection.OpenOk)

    async def channel(self, number: int = 1) -> None:
        self.send(number, commands.Channel.Open())
        await self.expect(commands.Channel.OpenOk)

    def publish(self, exchange: str, key: str, body: bytes = b"x", *, channel: int = 1, **properties: Any) -> None:
        method = commands.Basic.Publish(0, exchange, key, mandatory=True)
        head = header.ContentHeader(0, len(body), commands.Basic.Properties(**properties))
        self.send(channel, method, head)
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            self.writer.write(b"\x03" + channel.to_bytes(2, "big") + len(piece).to_bytes(4, "big") + piece + b"\xce")

    async def closed(self) -> bool:
        """Whether the broker hangs up, whatever it says before."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionError:
                pass
        return True


Connect = Callable[..., Awaitable[Raw]]


class Stage:
    """A broker with the queues of one manager, one user endpoint and one group of alice."""

    def __init__(self, limits: Limits) -> None:
        self.broker = Broker(authorise, limits=limits, rule=rule)
        self.local = LocalTransport(self.broker, patience_s=0.1)
        self.address = ("", 0)
        self._clients: list[Raw] = []

    async def start(self) -> None:
        for spec in (
            QueueSpec(topology.commands_queue(MANAGER), [Binding(topology.COMMANDS, "direct", str(MANAGER))]),
            QueueSpec(topology.tasks_queue(USER_ENDPOINT), [Binding(topology.TASKS, "direct", str(USER_ENDPOINT))]),
            QueueSpec(topology.RESULTS, [Binding(topology.RESULTS, "topic", "*.results")], confirm_on_ack=True),
            QueueSpec(topology.HEARTBEATS, [Binding(topology.HEARTBEATS, "topic", "*.heartbeats")]),
            QueueSpec(topology.group_queue(ALICE, UUID(int=9))),
        ):
            await self.local.declare(spec)
        self.address = await self.broker.start()

    async def connect(self, username: str = "", **how: Any) -> Raw:
        client = Raw(*await asyncio.open_connection(*self.address))
        self._clients.append(client)
        if username:
            await client.log_in(username, **how)
            await client.channel()
        return client

    async def stop(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()
        await self.local.close()
        await self.broker.stop()


@pytest.fixture
async def stages() -> AsyncIterator[Callable[..., Awaitable[Stage]]]:
    """Makes a stage with these limits."""
    made: list[Stage] = []

    async def make(**limits: Any) -> Stage:
        stage = Stage(Limits(**{"close_s": 0.3, **limits}))
        made.append(stage)
        await stage.start()
        return stage

    yield make
    for stage in made:
        await stage.stop()


@pytest.fixture
async def stage(stages: Callable[..., Awaitable[Stage]]) -> Stage:
    return await stages()
