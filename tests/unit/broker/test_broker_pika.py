"""The steps of the official clients, with the library they use."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ProbableAuthenticationError

from muster.transport.contract import Outgoing
from muster.wire import topology

WORKER = UUID(int=2)


def connect(stage: Any, username: str, password: str = "secret") -> pika.BlockingConnection:
    host, port = stage.address
    return pika.BlockingConnection(pika.URLParameters(f"amqp://{username}:{password}@{host}:{port}/%2F"))


async def test_a_publisher_looks_then_publishes_with_confirms(stage: Any) -> None:
    def publish() -> None:
        with connect(stage, "worker") as connection:
            channel = connection.channel()
            channel.exchange_declare("results", passive=True)
            channel.queue_declare("results", passive=True)
            channel.confirm_delivery()
            for number in range(3):
                channel.basic_publish(
                    "results",
                    topology.results_key(WORKER),
                    b"%d" % number,
                    pika.BasicProperties(delivery_mode=2),
                    mandatory=True,
                )

    async def keep() -> list[bytes]:
        kept: list[bytes] = []
        async for deliveries in stage.local.consume("results"):
            for delivery in deliveries:
                kept.append(delivery.body)
                delivery.ack()
            if len(kept) == 3:
                return kept
        raise AssertionError("ended")

    async with asyncio.timeout(20):
        _, kept = await asyncio.gather(asyncio.to_thread(publish), keep())
    assert kept == [b"0", b"1", b"2"]


async def test_an_unroutable_message_comes_back(stage: Any) -> None:
    await stage.local.delete("heartbeats")

    def publish() -> None:
        with connect(stage, "worker") as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("heartbeats", topology.heartbeats_key(WORKER), b"x", mandatory=True)

    with pytest.raises(pika.exceptions.UnroutableError):
        await asyncio.to_thread(publish)


async def test_a_reader_takes_all_and_acknowledges_many_at_once(stage: Any) -> None:
    queue = topology.tasks_queue(WORKER)
    await stage.local.publish([Outgoing("", queue, b"%d" % n) for n in range(200)])

    def read() -> list[bytes]:
        bodies: list[bytes] = []
        with connect(stage, "worker") as connection:
            channel = connection.channel()
            for method, _, body in channel.consume(queue, exclusive=True, inactivity_timeout=10):
                bodies.append(body)
                if len(bodies) == 200:
                    channel.basic_ack(method.delivery_tag, multiple=True)
                    break
            channel.cancel()
        return bodies

    assert await asyncio.to_thread(read) == [b"%d" % n for n in range(200)]
    state = await stage.local.state(queue)
    assert (state.messages, state.consumers) == (0, 0)


async def test_a_wrong_password_looks_like_rabbitmqs_refusal(stage: Any) -> None:
    with pytest.raises(ProbableAuthenticationError):
        await asyncio.to_thread(connect, stage, "worker", "wrong")


async def test_another_queue_is_closed_with_403(stage: Any) -> None:
    def read() -> None:
        with connect(stage, "worker") as connection:
            connection.channel().basic_get("results")

    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        await asyncio.to_thread(read)
