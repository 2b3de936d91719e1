"""A legitimate user with bad intentions, and a user endpoint that lies: what they do to others must be nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2

from muster.broker.limits import Limits
from muster.model.endpoint import UserEndpointKey
from muster.service import tasks as service_tasks
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Outgoing
from muster.wire import bundle, topology
from whole.service_stage import (
    ARGUMENTS,
    QUICK,
    Person,
    Stage,
    new_group,
    next_of,
    report,
    runner,
    serving,
    soon,
    waiting,
)

MIB = 1024 * 1024


async def single(person: Person) -> tuple[str, str]:
    """An endpoint that runs tasks itself: id, and the URL with its credentials."""
    registered = await person.register(ours="single")
    return registered["endpoint_id"], registered["task_queue_info"]["connection_url"]


async def publish(url: str, sender: str, items: list[bundle.ResultItem]) -> None:
    transport = AmqpTransport(url, label="liar")
    await transport.open()
    key = topology.results_key(UUID(sender))
    body = bundle.encode_results(items)
    await transport.publish([Outgoing(topology.RESULTS, key, body, content_type=bundle.RESULTS)])
    await transport.close()


async def submitted(person: Person, endpoint: str, count: int, **more: Any) -> list[str]:
    function = await person.register_function()
    answer = await person.submit(endpoint, function, tasks={function: [ARGUMENTS] * count}, **more)
    return list(answer["tasks"][function])


async def test_nobody_registers_under_the_id_of_a_user_endpoint(tmp_path: Path) -> None:
    """It follows from public facts, and its credentials would read somebody else's tasks."""
    async with serving(tmp_path) as stage:
        harper, alice, mickey = [await stage.person(name) for name in ("harper", "alice", "mickey97")]
        endpoint = (await harper.register(ours="manager", multi_user=True))["endpoint_id"]
        uep = str(UserEndpointKey.of(UUID(endpoint), alice.identity.id, {}).id)
        body = {"endpoint_name": "mine", "muster": {"version": "0.1.0", "kind": "single"}}
        await mickey.call("PUT", f"/v3/endpoints/{uep}", body, 409)  # before alice came
        await submitted(alice, endpoint, 1, bundles=1)
        for spelling in (uep, uep.upper(), f"{{{uep}}}", f"urn:uuid:{uep}", uep.replace("-", "")):
            await mickey.call("PUT", f"/v3/endpoints/{spelling}", body, 409)
            await alice.call("PUT", f"/v3/endpoints/{spelling}", body, 409)


async def test_results_that_nobody_reads_do_not_stop_anybody_elses(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=24 * MIB, queue_bytes=4 * MIB, message_bytes=16 * MIB)
    async with serving(tmp_path, limits=limits) as stage:
        mickey, alice = await stage.person("mickey97"), await stage.person("alice")
        endpoint, url = await single(mickey)
        group = new_group()
        ids = await submitted(mickey, endpoint, 12, task_group_id=group, create_queue=True, bundles=1)
        for id_ in ids:
            await publish(url, endpoint, [bundle.ResultItem(UUID(id_).bytes, "00\n" + "x" * 3 * MIB)])
        await mickey.done(ids[-1])
        await alice_gets_hers(stage, alice)
        assert stage.broker.topology.held_bytes < 12 * MIB


async def test_tasks_that_nobody_acknowledges_do_not_stop_anybody_elses(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=24 * MIB, queue_bytes=4 * MIB)
    async with serving(tmp_path, limits=limits) as stage:
        mickey, alice = await stage.person("mickey97"), await stage.person("alice")
        endpoint, url = await single(mickey)
        function = await mickey.register_function()
        async with runner(url, UUID(endpoint), bundles=True, answering=False) as hoarder:
            for _ in range(10):
                await mickey.submit(endpoint, function, tasks={function: ["x" * 3 * MIB]})
            await soon(lambda: has(hoarder.seen, 1))
            await alice_gets_hers(stage, alice)
            assert stage.broker.topology.held_bytes < 12 * MIB
            hoarder.answering = True
            for delivery in hoarder.bodies:
                delivery.ack()
            await soon(lambda: has(hoarder.seen, 10), within_s=20)  # what waited in the store came in the end
        assert len(set(hoarder.seen)) == 10


async def has(seen: list[UUID], count: int) -> bool:
    return len(seen) >= count


async def alice_gets_hers(stage: Stage, alice: Person) -> None:
    endpoint, url = await single(alice)
    group = new_group()
    async with runner(url, UUID(endpoint), bundles=True):
        ids = await submitted(alice, endpoint, 3, task_group_id=group, create_queue=True, bundles=1)
        async with waiting(alice, group) as arrived:
            seen: set[str] = set()
            while len(seen) < 3:
                items = bundle.decode_results((await next_of(arrived)).body)
                seen |= {str(UUID(bytes=item.task)) for item in items}
        assert seen == set(ids)


async def test_one_answer_holds_a_bounded_amount_of_results_and_the_next_one_the_rest(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        mickey = await stage.person("mickey97")
        endpoint, url = await single(mickey)
        ids = await submitted(mickey, endpoint, 6)
        for id_ in ids:
            await publish(url, endpoint, [bundle.ResultItem(UUID(id_).bytes, "00\n" + "x" * 9 * MIB)])
        await mickey.done(ids[-1])
        left, rounds = list(ids), 0
        while left:
            answer = await stage.web.post("/v2/batch_status", json={"task_ids": left}, headers=mickey.headers)
            assert len(answer.content) < service_tasks._PORTION_BYTES + 10 * MIB
            results = answer.json()["results"]
            assert set(results) == set(left)
            done = [id_ for id_, document in results.items() if "completion_t" in document]
            assert done
            left = [id_ for id_ in left if id_ not in done]
            rounds += 1
        assert rounds == 2


async def test_a_restart_publishes_large_results_again_without_holding_them_all(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=64 * MIB, queue_bytes=24 * MIB)
    group = new_group()
    async with serving(tmp_path, limits=limits) as stage:
        mickey = await stage.person("mickey97")
        endpoint, url = await single(mickey)
        ids = await submitted(mickey, endpoint, 6, task_group_id=group, create_queue=True, bundles=1)
        for id_ in ids:
            await publish(url, endpoint, [bundle.ResultItem(UUID(id_).bytes, "00\n" + "x" * 9 * MIB)])
        await mickey.done(ids[-1])
    async with asyncio.timeout(30), serving(tmp_path, limits=limits) as stage:
        assert stage.broker.topology.held_bytes < 48 * MIB


async def test_a_result_with_impossible_facts_still_ends_its_task(tmp_path: Path) -> None:
    """Whatever is said beside the result, the result itself counts, and is told to readers of either kind."""
    beside: list[dict[str, Any]] = [
        {"started_ns": 2**63, "ended_ns": -(2**63)},
        {"details": '{"os": NaN}'},
        {"details": '{"a":' * 3000 + "1" + "}" * 3000},
        {"details": '{"a": "' + "x" * MIB + '"}'},
        {"error_code": "E" * MIB, "error_message": "m" * MIB},
    ]
    async with serving(tmp_path) as stage:
        mickey = await stage.person("mickey97")
        endpoint, url = await single(mickey)
        group = new_group()
        ids = await submitted(mickey, endpoint, len(beside), task_group_id=group, create_queue=True)
        async with waiting(mickey, group) as arrived:
            for id_, more in zip(ids, beside, strict=True):
                await publish(url, endpoint, [bundle.ResultItem(UUID(id_).bytes, "00\nfine", **more)])
            for id_ in ids:
                document = await mickey.done(id_)
                assert len(str(document)) < 100_000
                assert len((await next_of(arrived)).body) < 100_000


async def test_nobody_ends_the_task_of_another_endpoint(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        mickey, alice = await stage.person("mickey97"), await stage.person("alice")
        endpoint, _ = await single(alice)
        (task,) = await submitted(alice, endpoint, 1)
        other, url = await single(mickey)
        (own,) = await submitted(mickey, other, 1)
        await publish(url, other, [bundle.ResultItem(UUID(id_).bytes, "00\nforged") for id_ in (task, own)])
        await mickey.done(own)
        assert "completion_t" not in await alice.call("GET", f"/v2/tasks/{task}")


async def test_a_function_without_a_task_is_refused_before_anything_is_looked_up(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        mickey = await stage.person("mickey97")
        endpoint, _ = await single(mickey)
        function = await mickey.register_function()
        asked = {function: [ARGUMENTS], **{str(uuid4()): [] for _ in range(20_000)}}
        refused = await mickey.submit(endpoint, function, tasks=asked, status=422)
        assert "tasks" in refused["message"]


async def test_a_stranger_at_the_brokers_door_is_not_even_read(tmp_path: Path) -> None:
    async with serving(tmp_path, QUICK) as stage:
        read = 0

        async def body() -> Any:
            nonlocal read
            for _ in range(100):
                read += 1
                yield b"a&" * 1000

        answer: httpx2.Response = await stage.web.post("/broker/guess/user", content=body())
        assert answer.status_code == 404
        assert "guess" not in answer.text
        assert read <= 1


async def test_a_late_report_of_a_stranger_is_not_believed(tmp_path: Path) -> None:
    """An account that was revoked publishes nothing more, on its open connection either."""
    async with serving(tmp_path) as stage:
        mickey = await stage.person("mickey97")
        registered = await mickey.register(ours="single")
        endpoint = registered["endpoint_id"]
        old = AmqpTransport(registered["task_queue_info"]["connection_url"], label="old", patience_s=1)
        await old.open()
        await report(old, UUID(endpoint), {"heartbeat_period": 5, "active": True})
        await mickey.register(endpoint, ours="single")
        await soon(lambda: nobody_left(stage))
        await old.close()


async def nobody_left(stage: Stage) -> bool:
    return stage.broker.connections == 0
