"""Connections that die, do not read, send nonsense or are thrown out, and those beside them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.heartbeat import Heartbeat

from muster.errors import Outage
from muster.transport.contract import Outgoing
from muster.wire import topology

GROUP = topology.group_queue(UUID(int=3), UUID(int=9))
RESULT_KEY = topology.results_key(UUID(int=2))
SHOOT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def still_works(stage: Any) -> None:
    client = await stage.connect("alice")
    await stage.local.publish([Outgoing("", GROUP, b"alive")])
    client.send(1, commands.Basic.Get(0, GROUP, no_ack=True))
    await client.expect(commands.Basic.GetOk)
    client.writer.close()


async def gone(stage: Any, connections: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if stage.broker.connections == connections:
                return
            await asyncio.sleep(0.01)


@SHOOT
@given(st.binary(max_size=400), st.sampled_from(["", "greeted", "open"]))
async def test_random_bytes_harm_nobody_else(stage: Any, data: bytes, when: str) -> None:
    client = await stage.connect("alice" if when == "open" else "")
    if when == "greeted":
        client.writer.write(b"AMQP\x00\x00\x09\x01")
    client.writer.write(data)
    client.writer.close()
    await still_works(stage)


FRAME = st.builds(
    lambda kind, channel, payload: (
        bytes((kind,)) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"
    ),
    st.sampled_from([1, 2, 3, 8]),
    st.integers(0, 2),
    st.builds(
        lambda class_id, method_id, rest: bytes((0, class_id, 0, method_id)) + rest,
        st.sampled_from([10, 20, 40, 50, 60, 85, 90]),
        st.integers(0, 121),
        st.binary(max_size=60),
    ),
)


@SHOOT
@given(st.lists(FRAME, max_size=6))
async def test_random_frames_harm_nobody_else(stage: Any, frames: list[bytes]) -> None:
    client = await stage.connect("root")
    client.writer.write(b"".join(frames))
    client.writer.write_eof()
    await client.closed()
    client.writer.close()
    if GROUP in stage.broker.topology.queues:  # root may have deleted it by chance
        await still_works(stage)


async def test_disconnect_ends_the_connections_of_that_account_alone(stage: Any) -> None:
    worker, other, alice = [await stage.connect(name) for name in ("worker", "worker", "alice")]
    assert stage.broker.disconnect(["worker", "nobody"]) == 2
    for client in (worker, other):
        assert (await client.expect(commands.Connection.Close)).reply_code == 320
        client.send(0, commands.Connection.CloseOk())
        assert await client.closed()
    alice.send(1, commands.Basic.Qos())
    await alice.expect(commands.Basic.QosOk)


async def test_disconnect_catches_who_is_just_logging_in(stage: Any) -> None:
    looked_up, go_on = asyncio.Event(), asyncio.Event()
    authorise = stage.broker.authorise

    async def slow(username: str, password: str) -> Any:
        looked_up.set()
        account = await authorise(username, password)
        await go_on.wait()
        return account

    stage.broker.authorise = slow
    client = await stage.connect()
    login = asyncio.create_task(client.log_in("worker"))
    await looked_up.wait()
    assert stage.broker.disconnect(["worker"]) == 1
    go_on.set()
    with pytest.raises((AssertionError, asyncio.IncompleteReadError)):
        await login
    assert stage.broker.connections == 0


async def test_a_peer_without_heartbeats_is_dead_and_what_it_held_comes_again(stage: Any) -> None:
    await stage.local.publish([Outgoing("", GROUP, b"x")])
    client = await stage.connect("alice", heartbeat=1)
    client.send(1, commands.Basic.Consume(0, GROUP))
    await client.expect(commands.Basic.ConsumeOk)
    await client.expect(commands.Basic.Deliver)
    assert (await stage.local.state(GROUP)).messages == 0
    async with asyncio.timeout(10):
        kinds = set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            while True:
                kinds.add((await client.frame())[0])
    assert 8 in kinds  # ours came all the while
    assert (await stage.local.state(GROUP)).messages == 1


async def test_a_peer_with_heartbeats_lives(stage: Any) -> None:
    client = await stage.connect("alice", heartbeat=1)
    loop = asyncio.get_running_loop()
    until = loop.time() + 3
    while loop.time() < until:
        client.send(0, Heartbeat())
        async with asyncio.timeout(2):
            assert (await client.frame())[0] == 8
    client.send(1, commands.Basic.Qos())
    await client.expect(commands.Basic.QosOk)


async def test_a_slow_reader_costs_no_memory(stages: Any) -> None:
    stage = await stages(delivery_buffer_bytes=100_000)
    client = await stage.connect("alice")
    client.writer.transport.pause_reading()
    client.send(1, commands.Basic.Consume(0, GROUP))
    await stage.local.publish([Outgoing("", GROUP, bytes(50_000)) for _ in range(1000)])
    async with asyncio.timeout(10):
        while (await stage.local.state(GROUP)).consumers == 0:  # noqa: ASYNC110 - the broker has no event for it
            await asyncio.sleep(0.01)
        await still_works_beside(stage)
    ready = (await stage.local.state(GROUP)).messages
    assert ready > 700  # the rest is in the kernel's buffers and in ours
    client.writer.transport.resume_reading()
    async with asyncio.timeout(20):
        delivered = 0
        while delivered < 1000:
            delivered += isinstance(await client.method(), commands.Basic.Deliver)


async def still_works_beside(stage: Any) -> None:
    client = await stage.connect("manager")
    client.send(1, commands.Basic.Qos())
    await client.expect(commands.Basic.QosOk)


async def test_a_publisher_that_reads_no_answers_is_not_read_either(stages: Any) -> None:
    stage = await stages(reply_buffer_bytes=200_000, delivery_buffer_bytes=50_000)
    client = await stage.connect("worker")
    client.writer.transport.pause_reading()
    (connection,) = stage.broker._open
    for _ in range(400):  # each comes back whole, for nobody listens to that exchange any more
        client.publish("heartbeats", topology.heartbeats_key(UUID(int=2)), bytes(50_000))
        if _ == 0:
            await stage.local.delete("heartbeats")
    async with asyncio.timeout(10):
        while "unread" not in connection.held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert connection._writer.unsent_bytes() < 1_000_000
    client.writer.transport.resume_reading()
    async with asyncio.timeout(20):
        for _ in range(399):
            await client.expect(commands.Basic.Return)


async def test_publishers_wait_when_memory_is_used_up_and_go_on_when_it_is_free(stages: Any) -> None:
    stage = await stages(memory_bytes=200_000)
    client = await stage.connect("worker")
    client.send(1, commands.Confirm.Select())
    await client.expect(commands.Confirm.SelectOk)
    for _ in range(10):
        client.publish("results", RESULT_KEY, bytes(50_000))
    await client.expect(commands.Connection.Blocked)
    assert stage.broker.topology.held_bytes < 350_000
    with pytest.raises(Outage):
        await stage.local.publish([Outgoing("", GROUP, b"x")])
    seen = 0
    async with asyncio.timeout(10), aclosing(stage.local.consume("results")) as arrivals:
        async for deliveries in arrivals:
            for delivery in deliveries:
                delivery.ack()
            seen += len(deliveries)
            if seen == 10:
                break
    confirmed = 0
    while confirmed < 10:
        method = await client.method()
        if isinstance(method, commands.Basic.Ack):
            confirmed = method.delivery_tag
        else:
            assert isinstance(method, commands.Connection.Blocked | commands.Connection.Unblocked)
    assert stage.broker.topology.held_bytes == 0


async def test_a_publisher_that_also_reads_gets_nacks_when_memory_is_used_up(stages: Any) -> None:
    stage = await stages(memory_bytes=100_000)
    client = await stage.connect("root")
    client.send(1, commands.Confirm.Select(), commands.Basic.Consume(0, GROUP))
    await client.expect(commands.Confirm.SelectOk)
    await client.expect(commands.Basic.ConsumeOk)
    client.publish("", "heartbeats", bytes(150_000))
    client.publish("", "heartbeats", b"no room")
    await client.expect(commands.Connection.Blocked)
    answers = [await client.method(), await client.method()]
    assert {type(answer) for answer in answers} == {commands.Basic.Ack, commands.Basic.Nack}


async def test_a_confirm_waits_for_the_reader_that_must_keep_the_message(stage: Any) -> None:
    client = await stage.connect("worker")
    client.send(1, commands.Confirm.Select())
    await client.expect(commands.Confirm.SelectOk)
    for _ in range(3):
        client.publish("results", RESULT_KEY)
    client.publish("heartbeats", topology.heartbeats_key(UUID(int=2)))
    fourth = await client.expect(commands.Basic.Ack)  # nobody has kept the others yet
    assert (fourth.delivery_tag, fourth.multiple) == (4, False)
    async with asyncio.timeout(10), aclosing(stage.local.consume("results", ahead=3)) as arrivals:
        deliveries = list(await anext(arrivals))
        while len(deliveries) < 3:
            deliveries += await anext(arrivals)
        deliveries[1].ack()
        second = await client.expect(commands.Basic.Ack)
        assert (second.delivery_tag, second.multiple) == (2, False)
        deliveries[0].ack()
        deliveries[2].ack()
        rest = await client.expect(commands.Basic.Ack)
        assert (rest.delivery_tag, rest.multiple) == (3, True)


async def test_a_queue_that_goes_before_its_reader_kept_a_message_refuses_it(stage: Any) -> None:
    client = await stage.connect("worker")
    client.send(1, commands.Confirm.Select())
    await client.expect(commands.Confirm.SelectOk)
    client.publish("results", RESULT_KEY)
    client.send(1, commands.Basic.Qos())
    await client.expect(commands.Basic.QosOk)
    await stage.local.delete("results")
    assert (await client.expect(commands.Basic.Nack)).delivery_tag == 1
    assert stage.broker.topology.held_bytes == 0


async def test_a_deleted_queue_frees_also_what_a_reader_still_holds(stage: Any) -> None:
    client = await stage.connect("alice")
    await stage.local.publish([Outgoing("", GROUP, bytes(1000))])
    client.send(1, commands.Basic.Get(0, GROUP))
    await client.expect(commands.Basic.GetOk)
    await stage.local.delete(GROUP)
    assert stage.broker.topology.held_bytes == 0
    client.send(1, commands.Basic.Ack(1), commands.Basic.Qos())  # late, and no error
    await client.expect(commands.Basic.QosOk)
    assert stage.broker.topology.held_bytes == 0


async def test_readers_are_told_when_their_queue_goes(stage: Any) -> None:
    client = await stage.connect("alice")
    client.send(1, commands.Basic.Consume(0, GROUP, "tag"))
    await client.expect(commands.Basic.ConsumeOk)
    await stage.local.delete(GROUP)
    assert (await client.expect(commands.Basic.Cancel)).consumer_tag == "tag"


async def test_strangers_do_not_keep_customers_out(stages: Any) -> None:
    stage = await stages(connections=4, handshakes=3)
    strangers = [await stage.connect() for _ in range(8)]
    customer = await stage.connect("alice")
    customer.send(1, commands.Basic.Qos())
    await customer.expect(commands.Basic.QosOk)
    assert await strangers[0].closed()


async def test_connections_are_bounded(stages: Any) -> None:
    stage = await stages(connections=2)
    for _ in range(2):
        await stage.connect("alice")
    assert await (await stage.connect()).closed()
    assert stage.broker.connections == 2


async def test_one_account_does_not_take_all_connections(stages: Any) -> None:
    stage = await stages(connections_per_account=2)
    for _ in range(2):
        await stage.connect("alice")
    third = await stage.connect()
    with pytest.raises(AssertionError, match="NOT_ALLOWED"):
        await third.log_in("alice")
    await stage.connect("worker")


async def test_a_client_that_leaves_politely_is_forgotten(stage: Any) -> None:
    client = await stage.connect("alice")
    client.send(0, commands.Connection.Close(200, "bye", 0, 0))
    await client.expect(commands.Connection.CloseOk)
    assert await client.closed()
    await gone(stage, 0)


async def test_stopping_tells_everybody(stage: Any) -> None:
    client = await stage.connect("alice")
    stopping = asyncio.create_task(stage.broker.stop())
    assert (await client.expect(commands.Connection.Close)).reply_code == 320
    client.send(0, commands.Connection.CloseOk())
    await stopping
    assert await client.closed()
