"""What every Transport promises, asked of each: the fake, the in-process one, AMQP to our broker and to RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from uuid import uuid4

import pytest

from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.errors import Conflict, CredentialsRefused, NoSuchQueue, Outage
from muster.model.account import AccountKind, BrokerAccount
from muster.testing.memory import MemoryQueues, MemoryTransport
from muster.testing.rabbitmq import RabbitMQ
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Binding, Delivery, Outgoing, QueueSpec, QueueState, Transport

Party = Callable[[], Awaitable[Transport]]
ANYBODY = BrokerAccount("service", b"", AccountKind.MANAGER, uuid4())


async def admit(_username: str, _password: str) -> BrokerAccount | None:
    return ANYBODY


KINDS = ["memory", "local", "embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]


@pytest.fixture(params=KINDS)
async def party(request: pytest.FixtureRequest) -> AsyncIterator[Party]:
    """Makes one more party that talks to the same broker."""
    queues, broker = MemoryQueues(), Broker(admit, rule=lambda *_: True)
    url = request.getfixturevalue("rabbitmq").url if request.param == "rabbitmq" else ""
    if request.param == "embedded":
        host, port = await broker.start()
        url = f"amqp://service:any@{host}:{port}/%2F"
    opened: list[Transport] = []

    async def one_more() -> Transport:
        made: MemoryTransport | LocalTransport | AmqpTransport
        if request.param == "memory":
            made = MemoryTransport(queues)
        elif request.param == "local":
            made = LocalTransport(broker)
        else:
            made = AmqpTransport(url, label="test", patience_s=1)
        await made.open()
        opened.append(made)
        return made

    async with asyncio.timeout(60):
        yield one_more
    for transport in opened:
        await transport.close()
    await broker.stop()


@pytest.fixture
async def here(party: Party) -> Transport:
    return await party()


@pytest.fixture
async def queue(here: Transport) -> AsyncIterator[str]:
    name = f"q.{uuid4()}"
    await here.declare(QueueSpec(name))
    yield name
    # Our own parties are still open; on RabbitMQ the queue would outlive the test.
    with suppress(Outage):
        await here.delete(name)


def to(queue: str, *bodies: bytes) -> list[Outgoing]:
    return [Outgoing("", queue, body) for body in bodies]


async def take(transport: Transport, queue: str, count: int, *, ack: bool = True) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(20), aclosing(transport.consume(queue)) as arrivals:
        async for deliveries in arrivals:
            for delivery in deliveries[: count - len(taken)]:
                taken.append(delivery)
                if ack:
                    delivery.ack()
            if len(taken) == count:
                return taken
    raise AssertionError("the iteration ended")


async def until(transport: Transport, queue: str, fits: Callable[[QueueState], bool]) -> None:
    """Ask again until the answer fits, or the deadline is over."""
    async with asyncio.timeout(20):
        while True:
            state = await transport.state(queue)
            if state is not None and fits(state):
                return
            await asyncio.sleep(0.01)


async def until_ready(transport: Transport, queue: str, messages: int) -> None:
    await until(transport, queue, lambda state: state.messages == messages)


async def test_declare_says_whether_it_was_created_now(here: Transport, queue: str) -> None:
    assert not await here.declare(QueueSpec(queue))
    await here.delete(queue)
    assert await here.declare(QueueSpec(queue))


async def test_messages_arrive_in_order_with_everything_they_had(here: Transport, queue: str) -> None:
    message = Outgoing("", queue, b"one", "application/json", "utf-8", {"a": "b", "n": ["x", "y"]}, 1_700_000_000)
    await here.publish([message, *to(queue, b"two", b"three")])
    first, second, third = await take(here, queue, 3)
    assert [first.body, second.body, third.body] == [b"one", b"two", b"three"]
    assert (first.content_type, first.headers, first.timestamp_s) == (
        "application/json",
        {"a": "b", "n": ["x", "y"]},
        1_700_000_000,
    )
    assert (second.content_type, second.headers, second.timestamp_s) == (None, {}, None)
    assert (first.exchange, first.routing_key, first.redelivered) == ("", queue, False)


async def test_a_message_for_no_queue_is_an_error_and_the_others_arrive(here: Transport, queue: str) -> None:
    with pytest.raises(NoSuchQueue):
        await here.publish([*to(queue, b"a"), *to(f"none.{uuid4()}", b"lost"), *to(queue, b"b")])
    assert [delivery.body for delivery in await take(here, queue, 2)] == [b"a", b"b"]


async def test_an_exchange_that_does_not_exist_is_an_error_for_its_publisher_alone(here: Transport, queue: str) -> None:
    good = [asyncio.create_task(here.publish(to(queue, b"%d" % n))) for n in range(20)]
    with pytest.raises(NoSuchQueue):
        await here.publish([Outgoing(f"none.{uuid4()}", "key", b"")])
    await asyncio.gather(*good)
    bodies = {delivery.body for delivery in await take(here, queue, 20)}
    assert bodies == {b"%d" % n for n in range(20)}


async def test_a_direct_exchange_delivers_by_key_and_a_topic_exchange_by_pattern(here: Transport) -> None:
    name, other = f"q.{uuid4()}", f"q.{uuid4()}"
    direct, topic = f"direct.{uuid4()}", f"topic.{uuid4()}"
    await here.declare(QueueSpec(name, [Binding(direct, "direct", "k"), Binding(topic, "topic", "*.results")]))
    await here.declare(QueueSpec(other, [Binding(topic, "topic", "a.#")]))
    await here.publish(
        [Outgoing(direct, "k", b"1"), Outgoing(topic, "a.results", b"2"), Outgoing(topic, "a.b.c", b"3")]
    )
    with pytest.raises(NoSuchQueue):
        await here.publish([Outgoing(topic, "b.b.results", b"4")])
    with pytest.raises(NoSuchQueue):
        await here.publish([Outgoing(direct, "k.k", b"5")])
    assert [d.body for d in await take(here, name, 2)] == [b"1", b"2"]
    assert [d.body for d in await take(here, other, 2)] == [b"2", b"3"]
    await here.delete(name)
    await here.delete(other)


async def test_what_was_not_acknowledged_returns_when_its_reader_closes(
    here: Transport, queue: str, party: Party
) -> None:
    await here.publish(to(queue, b"a", b"b", b"c"))
    reader = await party()
    seen = await take(reader, queue, 3, ack=False)
    seen[1].ack()
    await reader.close()
    again = await take(here, queue, 2)
    assert [(d.body, d.redelivered) for d in again] == [(b"a", True), (b"c", True)]


async def test_what_was_acknowledged_is_gone(here: Transport, queue: str, party: Party) -> None:
    await here.publish(to(queue, *(b"%d" % n for n in range(50))))
    reader = await party()
    await take(reader, queue, 50)
    await reader.close()
    state = await here.state(queue)
    assert state is not None
    assert (state.messages, state.consumers) == (0, 0)


async def test_a_requeued_message_comes_again_and_says_so(here: Transport, queue: str) -> None:
    await here.publish(to(queue, b"a", b"b"))
    seen: list[tuple[bytes, bool]] = []
    async with asyncio.timeout(20), aclosing(here.consume(queue)) as arrivals:
        async for deliveries in arrivals:
            for delivery in deliveries:
                seen.append((delivery.body, delivery.redelivered))
                if delivery.redelivered or delivery.body == b"b":
                    delivery.ack()
                else:
                    delivery.requeue()
            if len(seen) == 3:
                break
    assert sorted(seen) == [(b"a", False), (b"a", True), (b"b", False)]


async def test_ahead_bounds_what_is_unacknowledged(here: Transport, queue: str) -> None:
    await here.publish(to(queue, *(b"%d" % n for n in range(10))))
    held: list[Delivery] = []
    async with asyncio.timeout(20), aclosing(here.consume(queue, ahead=3)) as arrivals:
        async for deliveries in arrivals:
            held += deliveries
            assert len(held) <= 3
            if len(held) == 3:
                state = await here.state(queue)
                assert state is not None
                assert state.messages == 7
                break
        for delivery in held:
            delivery.ack()
    await until_ready(here, queue, 7)


async def test_an_exclusive_reader_has_no_company(here: Transport, queue: str, party: Party) -> None:
    await here.publish(to(queue, b"a"))
    async with asyncio.timeout(20), aclosing(here.consume(queue, exclusive=True)) as mine:
        (first,) = await anext(mine)
        other = await party()
        with pytest.raises(Conflict):
            await anext(other.consume(queue))
        first.ack()


async def test_consuming_from_no_queue_is_an_error(here: Transport) -> None:
    with pytest.raises(NoSuchQueue):
        await anext(here.consume(f"none.{uuid4()}"))


async def test_deleting_a_queue_twice_is_no_error_and_its_reader_is_told(
    here: Transport, queue: str, party: Party
) -> None:
    await here.publish(to(queue, b"a"))
    reader = await party()
    async with asyncio.timeout(20), aclosing(reader.consume(queue)) as arrivals:
        await anext(arrivals)
        await here.delete(queue)
        await here.delete(queue)
        with pytest.raises(NoSuchQueue):
            await anext(arrivals)
    assert await here.state(queue) is None


async def test_a_reader_that_stops_returns_the_unseen_and_may_still_acknowledge_the_seen(
    here: Transport, queue: str
) -> None:
    async with asyncio.timeout(20):
        async with aclosing(here.consume(queue)) as arrivals:
            waiting = asyncio.ensure_future(anext(arrivals))
            await here.publish(to(queue, b"a"))
            (seen,) = await waiting
            await here.publish(to(queue, b"b"))
        await until_ready(here, queue, 1)
        seen.ack()
        (rest,) = await take(here, queue, 1)
        assert rest.body == b"b"
        await until_ready(here, queue, 0)


async def test_closing_ends_the_iteration(queue: str, party: Party) -> None:
    reader = await party()

    async def read() -> int:
        return sum([len(deliveries) async for deliveries in reader.consume(queue)])

    reading = asyncio.create_task(read())
    async with asyncio.timeout(20):
        await until(await party(), queue, lambda state: state.consumers == 1)
        await reader.close()
        assert await reading == 0


async def test_after_closing_nothing_is_published(party: Party, queue: str) -> None:
    gone = await party()
    await gone.close()
    with pytest.raises(Outage):
        await gone.publish(to(queue, b"late"))


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 3_000_000])
async def test_bodies_of_any_size_arrive_whole(here: Transport, queue: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    await here.publish(to(queue, body[:size]))
    (delivery,) = await take(here, queue, 1)
    assert delivery.body == body[:size]


async def test_many_publishers_lose_and_double_nothing(here: Transport, queue: str, party: Party) -> None:
    bodies = [b"%d" % n for n in range(1000)]
    other = await party()
    reading = asyncio.create_task(take(other, queue, len(bodies)))
    batches = [to(queue, *bodies[start : start + 10]) for start in range(0, len(bodies), 10)]
    await asyncio.gather(*(here.publish(batch) for batch in batches))
    assert sorted(d.body for d in await reading) == sorted(bodies)
    await until_ready(here, queue, 0)


async def test_publishing_nothing_is_fine(here: Transport) -> None:
    await here.publish([])


@pytest.mark.rabbitmq
async def test_rabbitmq_refuses_a_wrong_password_for_good(rabbitmq: RabbitMQ) -> None:
    with pytest.raises(CredentialsRefused):
        await AmqpTransport(rabbitmq.url.replace("muster:", "muster:x"), patience_s=5).open()


async def test_names_may_hold_any_text(here: Transport) -> None:
    name = f"q ü/%{uuid4()}"
    assert await here.declare(QueueSpec(name))
    await here.publish(to(name, b"a"))
    (delivery,) = await take(here, name, 1)
    assert delivery.routing_key == name
    await here.delete(name)


async def test_ahead_bytes_bounds_what_is_unacknowledged_give_or_take_a_message(
    here: Transport, queue: str, party: Party
) -> None:
    count, size, limit = 60, 100_000, 1_000_000
    await here.publish(to(queue, *(b"%02d" % n + bytes(size) for n in range(count))))
    seen: list[Delivery] = []
    bodies: set[bytes] = set()
    other = await party()
    async with asyncio.timeout(40), aclosing(here.consume(queue, ahead=1000, ahead_bytes=limit)) as arrivals:
        while len(bodies) < count:
            seen += await anext(arrivals)
            bodies |= {delivery.body[:2] for delivery in seen}
            assert sum(len(delivery.body) for delivery in seen) <= limit + 2 * size
            while (state := await other.state(queue)) is None or not state.consumers:
                continue  # it must not look unread for longer than a moment
            if len(seen) * size >= limit or len(bodies) == count:
                for delivery in seen:
                    delivery.ack()
                seen.clear()
    assert bodies == {b"%02d" % n for n in range(count)}


async def test_a_queue_with_a_time_to_hold_messages_is_the_same_queue(here: Transport, queue: str) -> None:
    assert not await here.declare(QueueSpec(queue, held_s=86_400))
    name = f"q.{uuid4()}"
    assert await here.declare(QueueSpec(name, held_s=86_400))
    assert not await here.declare(QueueSpec(name))
    await here.publish(to(name, b"kept"))
    assert [delivery.body for delivery in await take(here, name, 1)] == [b"kept"]
    await here.delete(name)
