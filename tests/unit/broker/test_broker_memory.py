"""What one account can hold of the broker's memory, and what that costs the others: nothing."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from pamqp import commands, header

from muster.broker import faults
from muster.broker.queue import MOST_CONSUMERS, Queue
from muster.errors import QueueFull
from muster.transport.contract import Outgoing
from muster.wire import topology

ALICE = UUID(int=3)
GROUP = topology.group_queue(ALICE, UUID(int=9))
MIB = 1024 * 1024


async def test_a_queue_that_nobody_reads_takes_its_share_and_no_more(stages: Any) -> None:
    stage = await stages(memory_bytes=16 * MIB, queue_bytes=4 * MIB)
    with pytest.raises(QueueFull):
        for _ in range(10):
            await stage.local.publish([Outgoing("", GROUP, bytes(MIB))])
    assert not stage.broker.topology.full
    await stage.local.publish([Outgoing(topology.TASKS, str(UUID(int=2)), b"others go on")])


async def test_a_refused_batch_is_refused_as_a_whole(stages: Any) -> None:
    stage = await stages(memory_bytes=16 * MIB, queue_bytes=1000)
    await stage.local.publish([Outgoing("", GROUP, bytes(2000))])
    held = stage.broker.topology.held_bytes
    batch = [Outgoing(topology.TASKS, str(UUID(int=2)), b"x"), Outgoing("", GROUP, b"y")]
    with pytest.raises(QueueFull):
        await stage.local.publish(batch)
    assert stage.broker.topology.held_bytes == held


async def test_a_reader_that_never_acknowledges_does_not_keep_memory_beyond_its_queue(stages: Any) -> None:
    stage = await stages(memory_bytes=16 * MIB, queue_bytes=2 * MIB)
    client = await stage.connect("alice")
    client.send(1, commands.Basic.Consume(0, GROUP, "tag"))
    await client.expect(commands.Basic.ConsumeOk)
    with pytest.raises(QueueFull):
        for _ in range(10):
            await stage.local.publish([Outgoing("", GROUP, bytes(MIB // 2))])
    await stage.local.delete(GROUP)
    assert stage.broker.topology.held_bytes == 0


async def test_unfinished_messages_of_all_connections_of_an_account_are_bounded(stages: Any) -> None:
    stage = await stages(message_bytes=1000, unfinished_bytes=1500)
    first, second = await stage.connect("root"), await stage.connect("root")
    unfinished = (commands.Basic.Publish(0, "", "q"), header.ContentHeader(0, 900, commands.Basic.Properties()))
    first.send(1, *unfinished)
    second.send(1, *unfinished)
    answers = [asyncio.create_task(client.expect(commands.Connection.Close)) for client in (first, second)]
    done, rest = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    assert [(await one).reply_code for one in done] == [506]
    for one in rest:
        one.cancel()
    other = await stage.connect("worker")  # another account has room of its own
    other.send(1, commands.Confirm.Select())
    await other.expect(commands.Confirm.SelectOk)
    other.publish("heartbeats", topology.heartbeats_key(UUID(int=2)), bytes(900))
    await other.expect(commands.Basic.Ack)


async def test_a_message_in_tiny_frames_arrives_whole(stage: Any) -> None:
    client = await stage.connect("worker")
    key = topology.heartbeats_key(UUID(int=2))
    body = bytes(range(200))
    client.send(1, commands.Basic.Publish(0, "heartbeats", key), header.ContentHeader(0, 200))
    client.writer.write(b"".join(b"\x03\x00\x01\x00\x00\x00\x01" + bytes((one,)) + b"\xce" for one in body))
    async with asyncio.timeout(10):
        async for deliveries in stage.local.consume("heartbeats"):
            assert [delivery.body for delivery in deliveries] == [body]
            break


def test_a_queue_has_a_bounded_number_of_readers() -> None:
    class Reader:
        exclusive = False

    queue = Queue("q", lambda message: None)
    for _ in range(MOST_CONSUMERS):
        queue.add(Reader())  # type: ignore[arg-type]
    with pytest.raises(faults.ChannelFault) as refused:
        queue.add(Reader())  # type: ignore[arg-type]
    assert refused.value.code == 406
