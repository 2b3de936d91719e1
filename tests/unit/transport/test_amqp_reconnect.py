"""AmqpTransport when the network, the broker or its own credentials go."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from muster.broker.limits import Limits
from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.errors import CredentialsRefused, NoSuchQueue, NotPermitted, Outage
from muster.model.account import AccountKind, BrokerAccount
from muster.testing.proxy import CuttingProxy
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Outgoing, QueueSpec

ANYBODY = BrokerAccount("anybody", b"", AccountKind.MANAGER, UUID(int=1))


class Door:
    """Who may come in, and how often somebody tried."""

    def __init__(self) -> None:
        self.passwords = {"good"}
        self.tries: list[str] = []

    async def __call__(self, _username: str, password: str) -> BrokerAccount | None:
        self.tries.append(password)
        return ANYBODY if password in self.passwords else None


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def broker(door: Door) -> AsyncIterator[Broker]:
    made = Broker(door, rule=lambda *_: True, limits=Limits(close_s=0.3))
    local = LocalTransport(made)
    await local.declare(QueueSpec("q"))
    yield made
    await local.close()
    await made.stop()


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[CuttingProxy]:
    made = CuttingProxy(*await broker.start())
    yield made
    await made.stop()


@pytest.fixture
async def url(proxy: CuttingProxy) -> str:
    host, port = await proxy.start()
    return f"amqp://anybody:good@{host}:{port}/%2F"


@pytest.fixture
async def transport(url: str) -> AsyncIterator[AmqpTransport]:
    made = AmqpTransport(url, label="test", patience_s=10)
    async with asyncio.timeout(50):
        await made.open()
        yield made
        await made.close()


async def read(transport: AmqpTransport, wanted: set[bytes], *, ahead: int = 0) -> list[bytes]:
    """Everything that arrives until each wanted one did."""
    seen: list[bytes] = []
    missing = set(wanted)
    async with aclosing(transport.consume("q", ahead=ahead)) as arrivals:
        async for deliveries in arrivals:
            for delivery in deliveries:
                seen.append(delivery.body)
                missing.discard(delivery.body)
                delivery.ack()
            if not missing:
                return seen
    raise AssertionError("ended early")


@pytest.mark.parametrize("size", [10, 20_000])
async def test_nothing_is_lost_when_connections_are_cut_in_the_middle(
    transport: AmqpTransport, proxy: CuttingProxy, size: int
) -> None:
    bodies = [b"%06d" % n + bytes(size) for n in range(600)]
    reading = asyncio.create_task(read(transport, set(bodies), ahead=50))
    for start in range(0, len(bodies), 50):
        if start % 200 == 0:
            proxy.cut_after(1_000 + 17 * size + start)  # likely within a frame
        await transport.publish([Outgoing("", "q", body) for body in bodies[start : start + 50]])
    assert set(await reading) == set(bodies)
    assert proxy.accepted > 2


async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(
    transport: AmqpTransport, proxy: CuttingProxy
) -> None:
    await transport.publish([Outgoing("", "q", b"a")])
    async with aclosing(transport.consume("q")) as arrivals:
        (first,) = await anext(arrivals)
        proxy.cut()
        (again,) = await anext(arrivals)
        assert (again.body, first.redelivered, again.redelivered) == (b"a", False, True)
        first.ack()  # of a connection that is gone: no harm
        again.ack()
    assert await read_state(transport) == 0


async def read_state(transport: AmqpTransport) -> int:
    state = await transport.state("q")
    assert state is not None
    return state.messages


async def test_an_exclusive_reader_comes_back(transport: AmqpTransport, proxy: CuttingProxy) -> None:
    async with aclosing(transport.consume("q", exclusive=True)) as arrivals:
        for body in (b"a", b"b", b"c"):
            waiting = asyncio.ensure_future(anext(arrivals))
            await transport.publish([Outgoing("", "q", body)])
            (delivery,) = await waiting
            assert delivery.body == body
            delivery.ack()
            await transport.publish([])
            assert await read_state(transport) == 0
            proxy.cut()


async def test_publishing_waits_for_the_connection_to_come_back(transport: AmqpTransport, proxy: CuttingProxy) -> None:
    proxy.refusing = True
    proxy.cut()
    publishing = asyncio.create_task(transport.publish([Outgoing("", "q", b"late")]))
    seen = proxy.accepted
    async with asyncio.timeout(10):
        while proxy.accepted == seen:  # noqa: ASYNC110 - a counter of the proxy
            await asyncio.sleep(0.01)
    assert not publishing.done()
    proxy.refusing = False
    await publishing
    assert await read_state(transport) == 1


async def test_publishing_gives_up_when_the_patience_is_over(url: str, proxy: CuttingProxy) -> None:
    hasty = AmqpTransport(url, patience_s=0.5)
    await hasty.open()
    proxy.refusing = True
    proxy.cut()
    with pytest.raises(Outage):
        await hasty.publish([Outgoing("", "q", b"x")])
    await hasty.close()


async def test_opening_gives_up_when_nobody_listens(url: str, proxy: CuttingProxy) -> None:
    proxy.refusing = True
    with pytest.raises(Outage):
        await AmqpTransport(url, patience_s=0.5).open()


async def test_wrong_credentials_end_it_at_once(url: str, door: Door) -> None:
    door.passwords.clear()
    refused = AmqpTransport(url, patience_s=10)
    with pytest.raises(CredentialsRefused):
        await refused.open()
    assert len(door.tries) == 1


async def test_revoked_credentials_end_reading_and_publishing(
    transport: AmqpTransport, broker: Broker, door: Door
) -> None:
    reading = asyncio.create_task(read(transport, {b"never"}))
    door.passwords.clear()
    broker.disconnect(["anybody"])
    with pytest.raises(CredentialsRefused):
        await reading
    with pytest.raises(CredentialsRefused):
        await transport.publish([Outgoing("", "q", b"x")])


async def test_fresh_credentials_are_asked_for_at_each_connect(url: str, proxy: CuttingProxy, door: Door) -> None:
    asked: list[str] = []

    async def fresh() -> str:
        asked.append(f"pw{len(asked)}")
        door.passwords = {asked[-1]}
        return url.replace("good", asked[-1])

    transport = AmqpTransport(fresh, patience_s=10)
    await transport.open()
    for _ in range(2):
        proxy.cut()
        await transport.publish([Outgoing("", "q", b"x")])
    assert door.tries == asked == ["pw0", "pw1", "pw2"]
    await transport.close()


async def test_a_url_that_cannot_be_had_at_the_moment_is_asked_for_again(url: str) -> None:
    replies: list[Exception | str] = [Outage("down", what="The service"), OSError("down"), url]
    answers = iter(replies)

    async def sometimes() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = AmqpTransport(sometimes, patience_s=10)
    await transport.open()
    await transport.close()


async def test_a_url_that_is_refused_ends_it(url: str) -> None:
    async def never() -> str:
        raise CredentialsRefused(url[:4])

    with pytest.raises(CredentialsRefused):
        await AmqpTransport(never).open()


async def test_a_queue_may_come_back_a_little_later_than_its_broker(
    transport: AmqpTransport, broker: Broker, proxy: CuttingProxy
) -> None:
    local = LocalTransport(broker)
    async with aclosing(transport.consume("q")) as arrivals:
        await transport.publish([Outgoing("", "q", b"a")])
        (first,) = await anext(arrivals)
        first.ack()
        waiting = asyncio.ensure_future(anext(arrivals))
        tries = proxy.accepted
        broker.topology.queues.pop("q")  # as after a restart: nobody is told, it just is not there
        broker.topology._routes.clear()
        proxy.cut()
        async with asyncio.timeout(10):
            while proxy.accepted == tries:  # noqa: ASYNC110 - a counter of the proxy
                await asyncio.sleep(0.01)
        await local.declare(QueueSpec("q"))
        await local.publish([Outgoing("", "q", b"b")])
        (second,) = await waiting
        assert second.body == b"b"
        second.ack()
    await local.close()


async def test_a_forbidden_message_is_an_error_for_its_publisher_alone(door: Door) -> None:
    strict = Broker(door, limits=Limits(close_s=0.3))
    local = LocalTransport(strict)
    await local.declare(QueueSpec("heartbeats"))
    host, port = await strict.start()
    transport = AmqpTransport(f"amqp://anybody:good@{host}:{port}/%2F", patience_s=1)
    await transport.open()
    with pytest.raises(NotPermitted):
        await transport.publish([Outgoing("results", "x", b"x")])
    with pytest.raises(NotPermitted):
        await anext(transport.consume("q"))
    with pytest.raises(NotPermitted):
        await transport.declare(QueueSpec("mine"))
    await transport.close()
    await local.close()
    await strict.stop()


async def test_a_missing_queue_is_no_reason_to_wait(transport: AmqpTransport) -> None:
    with pytest.raises(NoSuchQueue):
        await anext(transport.consume("none"))


def certificate(directory: Path) -> tuple[Path, Path]:
    """Our own authority for 127.0.0.1: certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


async def test_a_private_authority_travels_in_the_url(broker: Broker, tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)
    host, port = await broker.start(ssl=context)
    options = quote(repr({"cadata": cert_file.read_text(), "server_hostname": "127.0.0.1"}))
    base = f"amqps://anybody:good@{host}:{port}/%2F"
    transport = AmqpTransport(f"{base}?ssl_options={options}", patience_s=5)
    await transport.open()
    await transport.publish([Outgoing("", "q", bytes(500_000))])
    assert await read_state(transport) == 1
    await transport.close()
    with pytest.raises(Outage):
        await AmqpTransport(base, patience_s=0.5).open()  # nobody else vouches for it
