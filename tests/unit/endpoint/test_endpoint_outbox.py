from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.endpoint.journal import Journal
from muster.endpoint.links import Address, Links
from muster.endpoint.outbox import Outbox, official
from muster.endpoint.spool import Spool
from muster.transport.contract import Binding, Delivery, QueueSpec
from muster.wire.bundle import MAX_ITEMS, ResultItem, decode_results
from muster.wire.envelope import ResultMessage, decode

RESULTS = QueueSpec("results", [Binding("results", "topic", "*.results")])
ENDPOINT = uuid4()


class Bench:
    """An outbox, a broker in process, and what came out at the other end."""

    def __init__(self, directory: Path, transport: LocalTransport, *, bundles: bool = True) -> None:
        self.directory = directory
        self.transport = transport
        self.bundles = bundles
        self.confirmed: list[bytes] = []
        self.got: list[Delivery] = []
        self.open()

    def open(self, limit: int = 100) -> None:
        links = Links(ENDPOINT, "", "t", Address("results", f"{ENDPOINT}.results"), Address("h", "h"), self.bundles)
        self.spool = Spool(self.directory / "results")
        self.journal = Journal(self.directory / "journal")
        self.outbox = Outbox(links, self.spool, self.journal, self.confirmed.extend, limit)

    async def sent(self) -> list[list[Any]]:
        """Send everything, and what each message held."""
        running = asyncio.create_task(self.outbox.run(self.transport))
        try:
            async with asyncio.timeout(10):
                await self.outbox.flushed()
                return [message async for message in self.read()]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def read(self) -> AsyncIterator[list[Any]]:
        state = await self.transport.state("results")
        left = state.messages if state else 0
        while left:
            async for deliveries in self.transport.consume("results"):
                for delivery in deliveries:
                    delivery.ack()
                    yield decode_results(delivery.body) if self.bundles else [decode(delivery.body)]
                left -= len(deliveries)
                if left <= 0:
                    return


@pytest.fixture
async def transport() -> AsyncIterator[LocalTransport]:
    async def nobody(_username: str, _password: str) -> None:
        return None

    transport = LocalTransport(Broker(nobody))
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture
def make(tmp_path: Path, transport: LocalTransport) -> Callable[..., Bench]:
    def make(**options: Any) -> Bench:
        return Bench(tmp_path, transport, **options)

    return make


def item(data: str = "x", **more: Any) -> ResultItem:
    return ResultItem(uuid4().bytes, data, **more)


async def test_neighbours_travel_in_one_message(make: Callable[..., Bench], transport: LocalTransport) -> None:
    await transport.declare(RESULTS)
    bench = make()
    items = [item(str(n)) for n in range(50)]
    for one in items:
        bench.outbox.deliver([one])
    (message,) = await bench.sent()
    assert [one.task for one in message] == [one.task for one in items] == bench.confirmed
    assert next((bench.directory / "results").iterdir()).stat().st_size == 0


async def test_no_bundle_is_larger_than_agreed(make: Callable[..., Bench], transport: LocalTransport) -> None:
    await transport.declare(RESULTS)
    bench = make()
    bench.outbox.deliver([item() for _ in range(2 * MAX_ITEMS + 1)])
    assert [len(message) for message in await bench.sent()] == [MAX_ITEMS, MAX_ITEMS, 1]


async def test_every_result_names_the_endpoint(make: Callable[..., Bench], transport: LocalTransport) -> None:
    await transport.declare(RESULTS)
    bench = make()
    bench.outbox.deliver([item(details='{"os": "Linux"}'), item()])
    ((first, second),) = await bench.sent()
    assert json.loads(first.details) == {"os": "Linux", "endpoint_id": str(ENDPOINT)}
    assert second.details == first.details


async def test_a_result_over_the_limit_is_replaced(make: Callable[..., Bench], transport: LocalTransport) -> None:
    await transport.declare(RESULTS)
    bench = make()
    bench.outbox.deliver([item("x" * 101), item("y" * 200, error_code="E", error_message="m")])
    ((large, failed),) = await bench.sent()
    assert (large.error_code, large.data) == ("MaxResultSizeExceeded", "MaxResultSizeExceeded(101, 100)")
    assert (failed.error_code, failed.data) == ("E", "y" * 100)


async def test_a_queue_that_comes_late_gets_everything(
    make: Callable[..., Bench], transport: LocalTransport, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.outbox.deliver([item("a")])
    running = asyncio.create_task(bench.outbox.run(transport))
    async with asyncio.timeout(10):
        while "cannot be sent now" not in caplog.text:  # noqa: ASYNC110 a log has no event
            await asyncio.sleep(0.01)
    assert bench.confirmed == []
    await transport.declare(RESULTS)
    async with asyncio.timeout(10):
        await bench.outbox.flushed()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(bench.confirmed) == 1


async def test_what_was_not_sent_is_sent_by_the_next(make: Callable[..., Bench], transport: LocalTransport) -> None:
    await transport.declare(RESULTS)
    bench = make()
    items = [item("a"), item("b")]
    bench.outbox.deliver(items)
    bench.open()
    bench.outbox.recover()
    assert items[0].task in bench.outbox
    (message,) = await bench.sent()
    assert [one.data for one in message] == ["a", "b"]
    bench.open()
    bench.outbox.recover()
    assert len(bench.outbox) == 0
    assert bench.journal.ended(items[1].task)


async def test_without_bundles_results_are_official(make: Callable[..., Bench], transport: LocalTransport) -> None:
    await transport.declare(RESULTS)
    bench = make(bundles=False)
    bench.outbox.deliver([item("a", started_ns=5, ended_ns=7), item("t", error_code="E", error_message="m")])
    (good,), (bad,) = await bench.sent()
    assert isinstance(good, ResultMessage)
    assert [(s.state, s.timestamp, s.actor) for s in good.task_statuses] == [
        ("execution-start", 5, "worker"),
        ("execution-end", 7, "worker"),
    ]
    assert good.error_details is None
    assert (bad.error_details.code, bad.error_details.user_message, bad.data) == ("E", "m", "t")


def test_an_official_result_has_the_tasks_id() -> None:
    one = item("a", details='{"a": 1}')
    assert UUID(official(one).task_id).bytes == one.task
    assert official(one).details == {"a": 1}
