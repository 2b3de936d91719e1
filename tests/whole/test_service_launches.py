"""Starts that fail, endpoints that go, and the outcome that every task gets all the same."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from muster.transport.amqp import AmqpTransport
from muster.wire import topology
from muster.wire.envelope import ResultMessage, decode
from whole.service_stage import (
    QUICK,
    Person,
    Site,
    Stage,
    credentials_in,
    manager,
    next_of,
    official_credentials_in,
    report,
    runner,
    serving,
    soon,
    waiting,
)


class Play:
    """One manager of harper's, and a function to call."""

    def __init__(self, stage: Stage, harper: Person, registered: dict[str, Any], function: str, site: Site) -> None:
        self.stage, self.harper, self.site, self.function = stage, harper, site, function
        self.endpoint = str(registered["endpoint_id"])

    async def submit(self, **more: Any) -> str:
        answer = await self.harper.submit(self.endpoint, self.function, **{"bundles": 1, **more})
        return str(answer["tasks"][self.function][0])


async def a_play(stack: AsyncExitStack, data: Path, *, ours: bool, **settings: Any) -> Play:
    stage = await stack.enter_async_context(serving(data, replace(QUICK, **settings)))
    harper = await stage.person("harper")
    registered = await harper.register(ours="manager" if ours else None, multi_user=True)
    function = await harper.register_function()
    site = await stack.enter_async_context(manager(registered))
    await site.beat()
    return Play(stage, harper, registered, function, site)


async def test_an_order_is_said_again_until_somebody_checks_in(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        task = await play.submit()
        orders = [await play.site.next_order() for _ in range(3)]
        facts = [credentials_in(order) for order in orders]
        assert len({fact["id"] for fact in facts}) == 1
        assert len({fact["url"] for fact in facts}) == 3, "each order has credentials of its own"
        assert len({order.body for order in orders}) == 3, "each order has a nonce of its own"
        async with runner(facts[0]["url"], facts[0]["id"], bundles=True):
            assert (await play.harper.done(task))["status"] == "success"


@pytest.mark.parametrize("code", ["START_FAILED", "IDENTITY_UNMAPPED"])
async def test_a_start_that_failed_ends_the_tasks_with_its_cause(tmp_path: Path, code: str) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        task = await play.submit()
        id_ = credentials_in(await play.site.next_order())["id"]
        await play.site.beat(bundles=1, exits=[{"endpoint_id": str(id_), "code": code, "public": "no such module"}])
        document = await play.harper.done(task)
        assert (document["status"], document["error_code"]) == ("failed", code)
        assert code == "IDENTITY_UNMAPPED" or "no such module" in document["exception"]


async def test_an_official_client_learns_the_cause_from_its_post(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=False)
        posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function, status=422))
        facts = official_credentials_in(await play.site.next_order())
        transport = AmqpTransport(facts["url"], label="failing")
        await transport.open()
        try:
            text = "Ignoring start request for untrusted identity."
            await report(transport, facts["id"], {"error": text, "heartbeat_period": 3})
            refused = await posted
        finally:
            await transport.close()
        assert refused["code"] == "SEMANTICALLY_INVALID"
        assert refused["message"].startswith("Request payload failed validation: ")
        assert text in refused["message"]


async def test_an_error_under_the_managers_own_id_does_not_make_it_offline(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=False)
        await play.site.beat(error="Failed to start or unexpected error:\n  (SystemExit) 77")
        status = await play.harper.call("GET", f"/v2/endpoints/{play.endpoint}/status")
        assert status["status"] == "online"
        task = await play.submit()
        facts = official_credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=False):
            assert (await play.harper.done(task))["status"] == "success"


async def test_silence_after_the_order_ends_the_tasks(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True, check_in_timeout_s=0.8)
        document = await play.harper.done(await play.submit())
        assert document["error_code"] == "START_FAILED"
        assert "did not check in" in document["exception"]


async def test_tasks_for_a_manager_that_stays_away_end_after_the_grace(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        registered = await harper.register(multi_user=True)
        function = await harper.register_function()
        began = time.monotonic()
        answer = await harper.submit(registered["endpoint_id"], function)  # an official client: it must not hang
        assert time.monotonic() - began < 3
        document = await harper.done(answer["tasks"][function][0])
        assert document["error_code"] == "EndpointOffline"


async def test_a_manager_that_returns_within_the_grace_gets_the_order(tmp_path: Path) -> None:
    async with serving(tmp_path, replace(QUICK, offline_grace_s=20)) as stage:
        harper = await stage.person("harper")
        registered = await harper.register(ours="manager", multi_user=True)
        function = await harper.register_function()
        task = (await harper.submit(registered["endpoint_id"], function, bundles=1))["tasks"][function][0]
        async with manager(registered) as site:
            facts = credentials_in(await site.next_order())
            async with runner(facts["url"], facts["id"], bundles=True):
                assert (await harper.done(task))["status"] == "success"


async def test_what_a_killed_user_endpoint_held_goes_to_its_successor(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        task = await play.submit()
        facts = credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=True, answering=False) as first:

            async def holds() -> bool:
                return bool(first.seen)

            await soon(holds)
        while not play.site.orders.empty():
            play.site.orders.get_nowait()
        await play.site.beat(exits=[{"endpoint_id": str(facts["id"]), "code": "EXITED", "quick": False}])
        facts = credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=True):
            assert (await play.harper.done(task))["status"] == "success"


async def test_a_user_endpoint_that_goes_without_a_word_is_started_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=False)
        task = await play.submit()
        facts = official_credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=False, answering=False) as first:

            async def holds() -> bool:
                return bool(first.seen)

            await soon(holds)
        while not play.site.orders.empty():
            play.site.orders.get_nowait()
        facts = official_credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=False):
            assert (await play.harper.done(task))["status"] == "success"


async def test_dying_young_again_and_again_ends_the_tasks(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        task = await play.submit()
        for _ in range(3):
            id_ = credentials_in(await play.site.next_order())["id"]
            fact = {"endpoint_id": str(id_), "code": "EXITED", "public": "no module named engine", "quick": True}
            await play.site.beat(exits=[fact])
        document = await play.harper.done(task)
        assert document["error_code"] == "START_FAILED"
        assert "3 times in a row" in document["exception"]
        assert "no module named engine" in document["exception"]


async def test_a_manager_cannot_end_the_tasks_of_another(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        mickey = await play.stage.person("mickey97")
        his = await stack.enter_async_context(manager(await mickey.register(ours="manager", multi_user=True)))
        task = await play.submit()
        facts = credentials_in(await play.site.next_order())
        await his.beat(exits=[{"endpoint_id": str(facts["id"]), "code": "START_FAILED", "public": "ha"}])
        async with runner(facts["url"], facts["id"], bundles=True):
            assert (await play.harper.done(task))["status"] == "success"


async def test_a_task_that_the_endpoint_lost_gets_an_outcome(tmp_path: Path) -> None:
    """An official user endpoint acknowledges before it runs: a crash of its engine can forget a task."""
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=False)
        task = await play.submit()
        facts = official_credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=False, answering=False) as worker:

            async def holds() -> bool:
                return bool(worker.seen)

            await soon(holds)
            worker.bodies[0].ack()
            for _ in range(2):
                await worker.check_in(heartbeat_period=0.001, outstanding_tasks=0, pending_tasks=0)
            document = await play.harper.done(task)
        assert document["error_code"] == "UserEndpointLost"


async def test_a_single_user_endpoint_may_be_away_for_a_while(tmp_path: Path) -> None:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        single = await harper.register(ours="single")
        function = await harper.register_function()
        answer = await harper.submit(single["endpoint_id"], function, bundles=0)
        async with waiting(harper, answer["task_group_id"]) as arrived:
            message = decode((await next_of(arrived)).body)
        assert isinstance(message, ResultMessage)
        assert message.error_details is not None
        assert message.error_details.code == "EndpointOffline"
        assert UUID(message.task_id) == UUID(answer["tasks"][function][0])


async def test_locking_disconnects_after_a_moment_and_refuses_registration(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        locked = await play.harper.call("POST", f"/v3/endpoints/{play.endpoint}/lock")
        assert locked["lock_expiration_timestamp"].startswith("20")
        asked = {"endpoint_name": "cluster"}
        refused = await play.harper.call("PUT", f"/v3/endpoints/{play.endpoint}", asked, 423)
        assert refused["code"] == "ENDPOINT_LOCKED"

        async def offline() -> bool:
            shown = await play.harper.call("GET", f"/v2/endpoints/{play.endpoint}/status")
            return bool(shown["status"] == "offline")

        assert await soon(offline)


async def test_deleting_an_endpoint_ends_its_tasks(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        task = await play.submit()
        await play.site.next_order()
        await play.harper.call("DELETE", f"/v2/endpoints/{play.endpoint}")
        document = await play.harper.done(task)
        assert document["error_code"] == "EndpointOffline"
        await play.harper.call("GET", f"/v2/endpoints/{play.endpoint}/status", status=404)


async def test_credentials_of_a_user_endpoint_that_stays_down_are_revoked(tmp_path: Path) -> None:
    from muster.errors import CredentialsRefused

    async with AsyncExitStack() as stack:
        play = await a_play(stack, tmp_path, ours=True)
        task = await play.submit()
        facts = credentials_in(await play.site.next_order())
        async with runner(facts["url"], facts["id"], bundles=True):
            await play.harper.done(task)
        await play.site.beat(exits=[{"endpoint_id": str(facts["id"]), "code": "EXITED", "quick": False}])

        async def refused() -> bool:
            transport = AmqpTransport(facts["url"], label="late", patience_s=2)
            try:
                await transport.open()
            except CredentialsRefused:
                return True
            await transport.close()
            return False

        assert await soon(refused)
        assert topology.tasks_queue(facts["id"])
