"""Which mistake gets which code, and whom it costs what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pamqp import commands, header
from pamqp.body import ContentBody

from muster.wire import topology

GROUP = "tg.00000000-0000-0000-0000-000000000003.00000000-0000-0000-0000-000000000009"
OWN_TASKS = "00000000-0000-0000-0000-000000000002.tasks"


@pytest.mark.parametrize(
    ("username", "password"), [("alice", "wrong"), ("nobody", "secret"), ("alice", ""), ("", ""), ("a\0b", "x")]
)
async def test_a_wrong_login_is_told_403_and_closed(stage: Any, username: str, password: str) -> None:
    client = await stage.connect()
    client.writer.write(b"AMQP\x00\x00\x09\x01")
    await client.expect(commands.Connection.Start)
    properties: Any = {"capabilities": {"authentication_failure_close": True}}
    client.send(0, commands.Connection.StartOk(properties, "PLAIN", f"\0{username}\0{password}", "en_US"))
    assert (await client.expect(commands.Connection.Close)).reply_code == 403
    assert await client.closed()


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "AMQPLAIN", "ANONYMOUS", ""])
async def test_other_mechanisms_than_plain_are_refused(stage: Any, mechanism: str) -> None:
    client = await stage.connect()
    client.writer.write(b"AMQP\x00\x00\x09\x01")
    await client.expect(commands.Connection.Start)
    client.send(0, commands.Connection.StartOk({}, mechanism, "guest", "en_US"))
    assert await client.closed()


async def test_a_peer_of_another_protocol_is_told_ours(stage: Any) -> None:
    client = await stage.connect()
    client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await client.reader.read(100) == b"AMQP\x00\x00\x09\x01"
    assert await client.closed()


async def test_nobody_may_dawdle_before_logging_in(stages: Any) -> None:
    stage = await stages(handshake_s=0.05)
    client = await stage.connect()
    client.writer.write(b"AMQP\x00\x00")
    assert await client.closed()


async def test_another_virtual_host_is_not_there(stage: Any) -> None:
    client = await stage.connect()
    client.writer.write(b"AMQP\x00\x00\x09\x01")
    await client.expect(commands.Connection.Start)
    client.send(0, commands.Connection.StartOk({}, "PLAIN", "\0alice\0secret", "en_US"))
    await client.expect(commands.Connection.Tune)
    client.send(0, commands.Connection.TuneOk(10, 131072, 0), commands.Connection.Open("other"))
    assert (await client.expect(commands.Connection.Close)).reply_code == 530


SOFT = [
    ("alice", commands.Queue.Declare(0, "q"), 403),
    ("alice", commands.Queue.Declare(0, OWN_TASKS, passive=True), 403),
    ("alice", commands.Queue.Declare(0, "results", passive=True), 403),
    ("alice", commands.Exchange.Declare(0, "results", passive=True), 403),
    ("alice", commands.Exchange.Declare(0, "x"), 403),
    ("alice", commands.Exchange.Delete(0, "results"), 403),
    ("alice", commands.Queue.Bind(0, GROUP, "results", "*.results"), 403),
    ("alice", commands.Queue.Purge(0, "results"), 403),
    ("alice", commands.Queue.Delete(0, GROUP), 403),
    ("alice", commands.Basic.Consume(0, "results"), 403),
    ("alice", commands.Basic.Consume(0, "there.is.none"), 403),  # the same as for one that exists
    ("alice", commands.Basic.Get(0, OWN_TASKS), 403),
    ("alice", commands.Basic.Consume(0, GROUP + ".missing"), 404),
    ("alice", commands.Basic.Ack(7), 406),
    ("alice", commands.Basic.Nack(7), 406),
    ("alice", commands.Basic.Ack(7, multiple=True), 406),
    ("worker", commands.Basic.Consume(0, GROUP), 403),
    ("manager", commands.Basic.Consume(0, OWN_TASKS), 403),
    ("root", commands.Queue.Declare(0, "missing", passive=True), 404),
    ("root", commands.Exchange.Declare(0, "missing", passive=True), 404),
    ("root", commands.Queue.Declare(0, "results", durable=False), 406),
    ("root", commands.Exchange.Declare(0, "results", "direct", durable=True), 406),
    ("root", commands.Queue.Declare(0, "q", durable=True, arguments={"x-message-ttl": 1}), 406),
    ("root", commands.Queue.Declare(0, "amq.mine", durable=True), 403),
    ("root", commands.Queue.Bind(0, "results", "", "k"), 403),
]


@pytest.mark.parametrize(("username", "method", "code"), SOFT)
async def test_a_channel_pays_for_its_mistake_alone(stage: Any, username: str, method: Any, code: int) -> None:
    client = await stage.connect(username)
    await client.channel(2)
    client.send(1, method)
    assert (await client.expect(commands.Channel.Close)).reply_code == code
    client.send(1, commands.Basic.Qos(), commands.Channel.CloseOk())  # ignored, and the end
    await client.channel(1)
    client.send(2, commands.Basic.Qos())
    await client.expect(commands.Basic.QosOk)


HARD = [
    (commands.Channel.Open(), 504),
    (commands.Tx.Select(), 540),
    (commands.Exchange.Bind(0, "a", "b"), 540),
    (commands.Exchange.Declare(0, "x", "headers"), 503),
    (commands.Basic.Qos(5), 540),
    (commands.Basic.Publish(0, "", "q", immediate=True), 540),
    (ContentBody(b"x"), 505),
    (header.ContentHeader(0, 1, commands.Basic.Properties()), 505),
]


@pytest.mark.parametrize(("method", "code"), HARD)
async def test_a_broken_protocol_ends_the_connection(stage: Any, method: Any, code: int) -> None:
    client = await stage.connect("root")
    client.send(1, method)
    assert (await client.expect(commands.Connection.Close)).reply_code == code
    client.send(0, commands.Connection.CloseOk())
    assert await client.closed()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x00\x00\x00\xce", 502),
        (b"\x01\x00\x01\x00\x00\x00\x01\x00\xce", 502),
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x0a\x00", 501),
        (b"\x01\x00\x01\xff\xff\xff\xff", 501),
        (b"\x07\x00\x01\x00\x00\x00\x00\xce", 501),
        (b"\x01\x00\x01\x00\x00\x00\x08\x00\x3c\x00\x28\x00\x00\xff\x00\xce", 502),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x50\x00\xce", 502),
        (b"\x01\x00\x09\x00\x00\x00\x0d\x00\x3c\x00\x50" + bytes(9) + b"\xce", 504),
        (b"\x03\x00\x00\x00\x00\x00\x01\x00\xce", 505),
    ],
)
async def test_bytes_that_are_no_frames_end_the_connection(stage: Any, raw: bytes, code: int) -> None:
    client = await stage.connect("root")
    client.writer.write(raw + b"\x00")
    assert (await client.expect(commands.Connection.Close)).reply_code == code


async def test_a_second_use_of_a_consumer_tag_is_530(stage: Any) -> None:
    client = await stage.connect("alice")
    client.send(1, commands.Basic.Consume(0, GROUP, "t"), commands.Basic.Consume(0, GROUP, "t"))
    await client.expect(commands.Basic.ConsumeOk)
    assert (await client.expect(commands.Connection.Close)).reply_code == 530


async def test_channels_and_consumers_are_bounded(stages: Any) -> None:
    stage = await stages(channels=2, consumers=2)
    client = await stage.connect("alice")
    client.send(3, commands.Channel.Open())
    assert (await client.expect(commands.Connection.Close)).reply_code == 530
    client = await stage.connect("alice")
    client.send(1, *(commands.Basic.Consume(0, GROUP, tag) for tag in "abc"))
    await client.expect(commands.Basic.ConsumeOk)
    await client.expect(commands.Basic.ConsumeOk)
    assert (await client.expect(commands.Connection.Close)).reply_code == 530


async def test_a_message_over_the_limit_is_refused_before_its_body_is_read(stages: Any) -> None:
    stage = await stages(message_bytes=1000)
    client = await stage.connect("root")
    client.send(1, commands.Basic.Publish(0, "", "q"), header.ContentHeader(0, 1001, commands.Basic.Properties()))
    assert (await client.expect(commands.Channel.Close)).reply_code == 406


async def test_unfinished_messages_of_all_channels_together_are_bounded(stages: Any) -> None:
    stage = await stages(message_bytes=1000)
    client = await stage.connect("root")
    await client.channel(2)
    for channel in (1, 2):
        client.send(
            channel, commands.Basic.Publish(0, "", "q"), header.ContentHeader(0, 600, commands.Basic.Properties())
        )
    assert (await client.expect(commands.Connection.Close)).reply_code == 506


async def test_another_name_in_user_id_is_refused(stage: Any) -> None:
    client = await stage.connect("worker")
    client.publish("heartbeats", f"{'0' * 8}-0000-0000-0000-000000000002.heartbeats", user_id="alice")
    assert (await client.expect(commands.Channel.Close)).reply_code == 406


@pytest.mark.parametrize("exchange", ["", "tasks", "commands", "amq.topic", "there.is.none"])
async def test_a_worker_publishes_nowhere_else(stage: Any, exchange: str) -> None:
    client = await stage.connect("worker")
    client.publish(exchange, "00000000-0000-0000-0000-000000000002.results")
    assert (await client.expect(commands.Channel.Close)).reply_code == 403


@pytest.mark.parametrize("exchange", [topology.RESULTS, topology.HEARTBEATS])
async def test_a_worker_publishes_under_no_other_name(stage: Any, exchange: str) -> None:
    client = await stage.connect("worker")
    client.publish(exchange, f"00000000-0000-0000-0000-000000000001.{exchange}")
    assert (await client.expect(commands.Channel.Close)).reply_code == 403


async def test_a_publisher_may_look_but_learns_no_depth(stage: Any) -> None:
    manager = await stage.connect("manager")
    for _ in range(3):
        manager.publish("heartbeats", "00000000-0000-0000-0000-000000000001.heartbeats")
    manager.send(
        1,
        commands.Exchange.Declare(0, "heartbeats", passive=True),
        commands.Queue.Declare(0, "heartbeats", passive=True),
    )
    await manager.expect(commands.Exchange.DeclareOk)
    answer = await manager.expect(commands.Queue.DeclareOk)
    assert (answer.queue, answer.message_count, answer.consumer_count) == ("heartbeats", 0, 0)
    assert (await stage.local.state("heartbeats")).messages == 3


async def test_a_failing_lookup_ends_the_login_and_not_the_broker(stage: Any) -> None:
    async def broken(_username: str, _password: str) -> None:
        raise RuntimeError("the database is away")

    working, stage.broker.authorise = stage.broker.authorise, broken
    client = await stage.connect()
    with pytest.raises((AssertionError, asyncio.IncompleteReadError)):
        await client.log_in("alice")
    stage.broker.authorise = working
    await stage.connect("alice")
