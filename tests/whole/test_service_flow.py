"""Tasks from the POST to the group's queue, over a real broker and a real store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from muster.wire import bundle
from muster.wire.command import decode_command
from muster.wire.envelope import ResultMessage, TaskMessage, decode
from whole.service_stage import (
    ARGUMENTS,
    CODE,
    credentials_in,
    manager,
    new_group,
    next_of,
    official_credentials_in,
    runner,
    serving,
    soon,
    waiting,
)


async def test_an_official_client_and_an_official_manager_meet(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        registered = await harper.register(multi_user=True)
        assert set(registered) == {"endpoint_id", "warnings", "heartbeat_queue_info", "command_queue_info"}
        function = await harper.register_function()
        async with manager(registered) as site:
            await site.beat()
            posted = asyncio.create_task(
                harper.submit(registered["endpoint_id"], function, user_endpoint_config={"hb": 5})
            )
            order = await site.next_order()
            assert order.content_type == "application/json"
            assert order.timestamp_s
            facts = official_credentials_in(order)
            async with runner(facts["url"], facts["id"], bundles=False) as worker:
                answer = await posted
                assert answer["endpoint_id"] == registered["endpoint_id"]
                task = answer["tasks"][function][0]
                async with waiting(harper, answer["task_group_id"]) as arrived:
                    result = decode((await next_of(arrived)).body)
                assert isinstance(result, ResultMessage)
                assert (result.task_id, result.data) == (task, f"00\n{task}")
                headers = worker.bodies[0].headers
                assert (headers["function_uuid"], headers["task_uuid"]) == (function, task)
                assert headers["resource_specification"] == "null"
                sent = decode(worker.bodies[0].body)
                assert isinstance(sent, TaskMessage)
                assert sent.task_buffer == CODE + ARGUMENTS
        document = await harper.done(task)
        assert (document["status"], document["result"]) == ("success", f"00\n{task}")
        assert document["details"]["task_transitions"] == {"execution-start": pytest.approx(1795327468.195)}


async def test_our_manager_gets_a_sealed_order_and_bundles_both_ways(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        registered = await harper.register(ours="manager", multi_user=True)
        function = await harper.register_function()
        ids = [str(uuid4()) for _ in range(3)]
        async with manager(registered) as site:
            asked: dict[str, Any] = {"tasks": {function: [ARGUMENTS] * 3}, "task_ids": {function: ids}, "bundles": 1}
            answer = await harper.submit(registered["endpoint_id"], function, **asked)
            assert answer["tasks"] == {function: ids}
            order = await site.next_order()
            sealed = decode_command(order.body).sealed
            assert sealed is not None
            key = base64.b64decode(registered["seal_key"])
            assert hmac.digest(key, sealed.order, "sha256") == sealed.seal
            assert hashlib.sha256(sealed.payload.encode()).digest() in sealed.order
            facts = credentials_in(order)
            async with (
                runner(facts["url"], facts["id"], bundles=True) as worker,
                waiting(harper, answer["task_group_id"]) as arrived,
            ):
                got: list[UUID] = []
                while len(got) < 3:
                    delivery = await next_of(arrived)
                    assert delivery.content_type == bundle.RESULTS
                    got += [UUID(bytes=item.task) for item in bundle.decode_results(delivery.body)]
                assert {str(id_) for id_ in got} == set(ids)
                assert worker.bodies[0].content_type == bundle.TASKS


async def test_repeating_a_post_with_task_ids_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        single = await harper.register(ours="single")
        function = await harper.register_function()
        group, task = new_group(), str(uuid4())
        asked: dict[str, Any] = {"task_group_id": group, "task_ids": {function: [task]}, "bundles": 1}
        url = single["task_queue_info"]["connection_url"]
        async with runner(url, UUID(single["endpoint_id"]), bundles=True) as worker:
            answers = [await harper.submit(single["endpoint_id"], function, **asked) for _ in range(3)]
            assert all(answer["tasks"] == {function: [task]} for answer in answers)
            await harper.done(task)
            await harper.submit(single["endpoint_id"], function, **asked)
            marker = (await harper.submit(single["endpoint_id"], function, bundles=1))["tasks"][function][0]
            await harper.done(marker)
            assert [str(id_) for id_ in worker.seen] == [task, marker]


async def test_values_decide_the_user_endpoint_and_people_never_share_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper, alice = await stage.person("harper"), await stage.person("alice")
        registered = await harper.register(ours="manager", multi_user=True)
        function = await harper.register_function(public=True)
        names = set()
        async with manager(registered) as site:
            for person, values in ((harper, {"a": 1}), (harper, {"a": 2}), (alice, {"a": 1})):
                await person.submit(registered["endpoint_id"], function, user_endpoint_config=values, bundles=1)

            async def three() -> bool:
                while not site.orders.empty():
                    names.add(credentials_in(site.orders.get_nowait())["id"])
                return len(names) == 3

            assert await soon(three)


async def test_a_result_of_somebody_elses_task_is_ignored(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper, mickey = await stage.person("harper"), await stage.person("mickey97")
        function = await harper.register_function()
        his, hers = await mickey.register(ours="single"), await harper.register(ours="single")
        task = (await harper.submit(hers["endpoint_id"], function, bundles=1))["tasks"][function][0]
        url = his["task_queue_info"]["connection_url"]
        async with runner(url, UUID(his["endpoint_id"]), bundles=False) as thief:
            await thief.answer([UUID(task)], data="00\nforged")
        assert "completion_t" not in await harper.call("GET", f"/v2/tasks/{task}")
        url = hers["task_queue_info"]["connection_url"]
        async with runner(url, UUID(hers["endpoint_id"]), bundles=True):
            assert (await harper.done(task))["result"] == f"00\n{task}"


async def test_the_first_result_of_a_task_stays(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        function = await harper.register_function()
        single = await harper.register(ours="single")
        task = (await harper.submit(single["endpoint_id"], function, bundles=1))["tasks"][function][0]
        url = single["task_queue_info"]["connection_url"]
        async with runner(url, UUID(single["endpoint_id"]), bundles=False, answering=False) as worker:
            for data in ("00\nfirst", "00\nsecond"):
                await worker.answer([UUID(task)], data=data)
            assert (await harper.done(task))["result"] == "00\nfirst"


async def test_rubbish_on_the_results_queue_does_not_stop_the_next_result(tmp_path: Path) -> None:
    from muster.transport.contract import Outgoing
    from muster.wire import topology

    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        function = await harper.register_function()
        single = await harper.register(ours="single")
        url, id_ = single["task_queue_info"]["connection_url"], UUID(single["endpoint_id"])
        async with runner(url, id_, bundles=True) as worker:
            key = topology.results_key(id_)
            for body in (b"", b"\x01{}", b"\xff" * 50, b'\x01{"message_type":"task","data":{}}'):
                await worker.transport.publish([Outgoing(topology.RESULTS, key, body)])
            task = (await harper.submit(single["endpoint_id"], function, bundles=1))["tasks"][function][0]
            assert (await harper.done(task))["status"] == "success"


async def test_a_retired_queue_comes_back_when_the_group_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        function = await harper.register_function()
        single = await harper.register(ours="single")
        answer = await harper.submit(single["endpoint_id"], function, create_queue=False)
        group = answer["task_group_id"]
        shown = await harper.call("GET", f"/v2/taskgroup/{group}")
        assert shown["taskgroup_id"] == group
        assert [task["id"] for task in shown["tasks"]] == answer["tasks"][function]
        url = single["task_queue_info"]["connection_url"]
        async with waiting(harper, group) as arrived, runner(url, UUID(single["endpoint_id"]), bundles=True):
            result = decode((await next_of(arrived)).body)
            assert isinstance(result, ResultMessage)


async def test_source_code_is_wrapped_by_the_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        function = await harper.register_function(function_code="def hello():\n    pass\n", serialized=False)
        shown = await harper.call("GET", f"/v2/functions/{function}")
        inner = "st\nhello:def hello():\n    pass\n"
        assert shown["function_code"] == f"{len(inner)}\n{inner}"
