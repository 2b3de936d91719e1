"""Our service's answers have all that the official clients found in the answers they were written for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from muster.transport.amqp import AmqpTransport
from muster.wire import topology
from muster.wire.envelope import decode
from muster.wire.rest import COMPUTE_SCOPE, PROJECTS_SCOPE
from whole.service_stage import (
    Person,
    Stage,
    manager,
    next_of,
    official_credentials_in,
    official_result,
    report,
    runner,
    serving,
    soon,
    waiting,
)

VECTORS = Path(__file__).parents[1] / "vectors"
REST: dict[str, dict[str, Any]] = {
    vector["what"]: vector for vector in json.loads((VECTORS / "official_rest.json").read_text())
}
AMQP: dict[str, dict[str, Any]] = {
    vector["what"]: vector for vector in json.loads((VECTORS / "official_amqp.json").read_text())
}
# What was submitted, and what travels beside the body.
FREE = {"user_opts", "user_runtime", "headers"}


def missing(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Keys of the official document that ours does not have, and types that differ."""
    if isinstance(theirs, dict):
        if not isinstance(ours, dict):
            return [f"{where} is {type(ours).__name__}"]
        gone = [f"{where}.{name}" for name in theirs if name not in ours]
        inside = [name for name in theirs if name in ours and name not in FREE]
        return gone + [lack for name in inside for lack in missing(ours[name], theirs[name], f"{where}.{name}")]
    if isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        return missing(ours[0], theirs[0], f"{where}[0]") if ours else [f"{where} is empty"]
    same = (
        ours is None or theirs is None or isinstance(ours, type(theirs)) or {type(ours), type(theirs)} <= {int, float}
    )
    return [] if same else [f"{where} is {type(ours).__name__}, not {type(theirs).__name__}"]


def assert_has_all(ours: Any, what: str) -> None:
    assert not missing(ours, REST[what]["response"])


@dataclass
class Room:
    """A service, its owner of things, and what an official agent registered."""

    stage: Stage
    harper: Person
    registered: dict[str, Any]

    @property
    def endpoint(self) -> str:
        return str(self.registered["endpoint_id"])


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with serving(tmp_path) as stage:
        harper = await stage.person("harper")
        registered = await harper.call("POST", "/v3/endpoints", REST["registration"]["request"])
        yield Room(stage, harper, registered)


async def test_a_registration_and_its_repetition(room: Room) -> None:
    assert_has_all(room.registered, "registration")
    asked = REST["registration again"]["request"]
    assert_has_all(await room.harper.call("PUT", f"/v3/endpoints/{room.endpoint}", asked), "registration again")
    alice = await room.stage.person("alice")
    refused = await alice.call("PUT", f"/v3/endpoints/{room.endpoint}", asked, 409)
    assert_has_all(refused, "registration of somebody else's")
    anonymous = await room.stage.web.put(f"/v3/endpoints/{room.endpoint}", json=asked)
    assert anonymous.status_code == REST["registration without a token"]["status"]
    assert_has_all(anonymous.json(), "registration without a token")


async def test_an_endpoint_from_its_status_to_its_end(room: Room) -> None:
    place = f"/v2/endpoints/{room.endpoint}"
    async with manager(room.registered) as site:
        await site.beat(**AMQP["a manager's heartbeat"]["body"]["data"]["global_state"])

        async def online() -> Any:
            status = await room.harper.call("GET", f"{place}/status")
            return status if status["details"] else None

        status = await soon(online)
    assert_has_all(status, "status")
    assert status["status"] == "online"
    assert_has_all(await room.harper.call("GET", place), "endpoint")
    allowed = await room.harper.call("GET", f"/v3/endpoints/{room.endpoint}/allowed_functions")
    assert_has_all(allowed, "allowed functions")
    assert_has_all(await room.harper.call("POST", f"/v3/endpoints/{room.endpoint}/lock"), "lock")
    asked = REST["registration again"]["request"]
    locked = await room.harper.call("PUT", f"/v3/endpoints/{room.endpoint}", asked, 423)
    assert_has_all(locked, "registration while locked")
    assert_has_all(await room.harper.call("DELETE", place), "deletion")
    gone = await room.harper.call("GET", f"{place}/status", status=404)
    assert gone["code"] == REST["status of nothing"]["response"]["code"]


async def test_a_task_from_its_post_to_its_result(room: Room) -> None:
    function = await room.harper.call("POST", "/v3/functions", REST["function"]["request"])
    assert_has_all(function, "function")
    payloads = next(iter(REST["submit"]["request"]["tasks"].values()))
    asked = {**REST["submit"]["request"], "tasks": {function["function_uuid"]: payloads}}
    place = f"/v3/endpoints/{room.endpoint}/submit"
    async with manager(room.registered) as site:
        await site.beat()
        posted = asyncio.create_task(room.harper.call("POST", place, asked))
        order = await site.next_order()
        assert not missing(json.loads(order.body), AMQP["a start command"]["body"])
        facts = official_credentials_in(order)
        async with runner(facts["url"], facts["id"], bundles=False, answering=False) as worker:
            submitted = await posted
            assert set(submitted["tasks"]) == {function["function_uuid"]}
            assert {"request_id", "task_group_id", "endpoint_id"} <= set(submitted)
            await soon(lambda: asyncio.sleep(0, worker.bodies))
            sent = worker.bodies[0]
            assert not missing(json.loads(sent.body[1:]), AMQP["a task"]["body"])
            assert set(AMQP["a task"]["properties"]["headers"]) <= set(sent.headers)
            async with waiting(room.harper, submitted["task_group_id"]) as arrived:
                await worker.answer(worker.seen)
                delivered = await next_of(arrived)
        sent_result = official_result(worker.seen[0])
        assert decode(delivered.body) == sent_result  # unchanged on its way
        assert set(AMQP["a result on its way to the SDK"]["body"]["data"]) == set(
            json.loads(delivered.body[1:])["data"]
        )
        assert delivered.timestamp_s
        assert delivered.headers["task_uuid"] == str(worker.seen[0])


async def test_a_submit_that_cannot_start(room: Room) -> None:
    function = await room.harper.register_function()
    async with manager(room.registered) as site:
        await site.beat()
        posted = asyncio.create_task(room.harper.submit(room.endpoint, function, status=422))
        facts = official_credentials_in(await site.next_order())
        transport = AmqpTransport(facts["url"], label="agent")  # with the credentials of the command, as it is told to
        await transport.open()
        try:
            await report(transport, facts["id"], AMQP["a start that was refused"]["body"]["data"]["global_state"])
            answer = await posted
        finally:
            await transport.close()
    assert_has_all(answer, "submit that cannot start")
    assert answer["code"] == REST["submit that cannot start"]["response"]["code"]
    assert answer["message"].startswith("Request payload failed validation: ")
    assert "Ignoring start request for untrusted identity." in answer["message"]


async def test_the_results_queue(room: Room) -> None:
    found = await room.harper.call("GET", "/v2/get_amqp_result_connection_url")
    assert_has_all(found, "results queue")
    assert found["queue_prefix"] == topology.group_prefix(UUID(str(room.harper.identity.id)))


async def test_the_version(room: Room) -> None:
    answer = await room.stage.web.get("/v2/version?service=all")
    assert_has_all(answer.json(), "version")


async def test_the_identity_service(room: Room) -> None:
    client = await room.stage.people.add_client("robot", "harper@example.org")
    pair = (str(client.client_id), client.client_secret)
    form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE}
    assert_has_all((await room.stage.web.post("/v2/oauth2/token", data=form, auth=pair)).json(), "token")
    refused = {"grant_type": "refresh_token", "refresh_token": str(uuid4())}
    answer = await room.stage.web.post("/v2/oauth2/token", data=refused, auth=pair)
    assert answer.status_code == 400
    assert answer.json()["error"] == REST["token refused"]["response"]["error"]
    scope = f"openid {PROJECTS_SCOPE}"
    token = await room.stage.token("harper@example.org", scope)
    headers = {"Authorization": f"Bearer {token}"}
    assert_has_all((await room.stage.web.get("/v2/oauth2/userinfo", headers=headers)).json(), "userinfo")
    asked = f"/v2/api/identities?ids={room.harper.identity.id}"
    assert_has_all((await room.stage.web.get(asked, headers=headers)).json(), "identities")
    discovery = (await room.stage.web.get("/.well-known/openid-configuration")).json()
    assert {"jwks_uri", "id_token_signing_alg_values_supported"} <= set(discovery)
    keys = (await room.stage.web.get(discovery["jwks_uri"].removeprefix("http://localhost:5000"))).json()
    assert {"kty", "n", "e", "alg", "use", "kid"} <= set(keys["keys"][0])
