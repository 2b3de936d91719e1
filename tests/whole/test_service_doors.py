"""Every route and every queue, against everybody who might knock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from muster.errors import CredentialsRefused, MusterError
from muster.model.policy import Policy
from muster.service.calls import CALLS
from muster.store.contract import Grant
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Outgoing
from muster.wire import topology
from muster.wire.rest import PROJECTS_SCOPE
from whole.service_stage import ARGUMENTS, CODE, Person, Stage, credentials_in, manager, serving

OWNER, OTHER, ANONYMOUS, EXPIRED, WRONG = "owner", "other", "anonymous", "expired", "wrong scope"
CALLERS = (OWNER, OTHER, ANONYMOUS, EXPIRED, WRONG)


@dataclass
class Room:
    """Harper's things, and everybody's tokens."""

    stage: Stage
    harper: Person
    tokens: dict[str, str | None]
    manager: dict[str, Any]
    single: dict[str, Any]
    function: str
    group: str
    task: str


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with serving(tmp_path) as stage:
        harper, mickey = await stage.person("harper"), await stage.person("mickey97")
        expired = "mt_expired"
        grant = Grant(
            sha256(expired.encode()).digest(),
            "access",
            None,
            harper.identity.id,
            "all",
            time.time() - 5,
            time.time() - 10,
            data='{"server":"funcx_service"}',
        )
        await stage.store.add_grant(grant)
        tokens = {
            OWNER: harper.token,
            OTHER: mickey.token,
            ANONYMOUS: None,
            EXPIRED: expired,
            WRONG: await stage.token("harper@example.org", PROJECTS_SCOPE),
        }
        registered, single = (
            await harper.register(ours="manager", multi_user=True),
            await harper.register(ours="single"),
        )
        function = await harper.register_function()
        answer = await harper.submit(single["endpoint_id"], function)
        group, task = answer["task_group_id"], answer["tasks"][function][0]
        yield Room(stage, harper, tokens, registered, single, function, group, task)


REGISTRATION = {"endpoint_name": "cluster"}
OPEN = (200, 200, 200, 200, 200)
ANYBODY = (200, 200, 401, 401, 403)
HIDDEN = (200, 404, 401, 401, 403)  # somebody else's is as if it were not there
FORBIDDEN = (200, 403, 401, 401, 403)  # known to exist, not theirs
TAKEN = (200, 409, 401, 401, 403)

# path as in the table of calls -> (path parameters, body, status per caller in the order of CALLERS)
ROWS: dict[tuple[str, str], tuple[dict[str, str], Any, tuple[int, ...]]] = {
    ("POST", "/v3/endpoints/{id}/submit"): ({"id": "SINGLE"}, {"tasks": {"FUNCTION": [ARGUMENTS]}}, HIDDEN),
    ("POST", "/v2/submit"): ({}, {"tasks": [["FUNCTION", "SINGLE", ARGUMENTS]]}, HIDDEN),
    ("POST", "/v2/batch_status"): ({}, {"task_ids": ["TASK"]}, ANYBODY),
    ("GET", "/v2/tasks/{id}"): ({"id": "TASK"}, None, HIDDEN),
    ("GET", "/v2/taskgroup/{id}"): ({"id": "GROUP"}, None, HIDDEN),
    ("GET", "/v2/get_amqp_result_connection_url"): ({}, None, ANYBODY),
    ("POST", "/v3/functions"): ({}, {"function_name": "f", "function_code": CODE}, ANYBODY),
    ("POST", "/v2/functions"): ({}, {"function_name": "f", "function_code": CODE}, ANYBODY),
    ("GET", "/v2/functions/{id}"): ({"id": "FUNCTION"}, None, HIDDEN),
    ("DELETE", "/v2/functions/{id}"): ({"id": "FUNCTION"}, None, HIDDEN),
    ("GET", "/v2/version"): ({}, None, OPEN),
    ("POST", "/v3/endpoints"): ({}, REGISTRATION, ANYBODY),
    ("POST", "/v2/endpoints"): ({}, REGISTRATION, ANYBODY),
    ("PUT", "/v3/endpoints/{id}"): ({"id": "MANAGER"}, REGISTRATION, TAKEN),
    ("GET", "/v2/endpoints"): ({}, None, ANYBODY),
    ("GET", "/v2/endpoints/{id}"): ({"id": "MANAGER"}, None, ANYBODY),
    ("DELETE", "/v2/endpoints/{id}"): ({"id": "MANAGER"}, None, FORBIDDEN),
    ("GET", "/v2/endpoints/{id}/status"): ({"id": "MANAGER"}, None, ANYBODY),
    ("POST", "/v3/endpoints/{id}/lock"): ({"id": "MANAGER"}, None, FORBIDDEN),
    ("POST", "/v2/endpoints/{id}/lock"): ({"id": "SINGLE"}, None, HIDDEN),
    ("GET", "/v3/endpoints/{id}/allowed_functions"): ({"id": "MANAGER"}, None, ANYBODY),
    ("GET", "/api/health"): ({}, None, OPEN),
    ("GET", "/api/user-endpoints"): ({}, None, ANYBODY),
    ("GET", "/metrics"): ({}, None, ANYBODY),
    ("GET", "/openapi.json"): ({}, None, OPEN),
    ("GET", "/broker/{secret}/{kind}"): ({"secret": "guess", "kind": "user"}, None, (404,) * 5),
    ("POST", "/broker/{secret}/{kind}"): ({"secret": "guess", "kind": "user"}, None, (404,) * 5),
}


def test_every_route_has_a_row_here() -> None:
    assert {(call.method, call.path) for call in CALLS} == set(ROWS)


def filled(value: Any, room: Room) -> Any:
    names = {
        "SINGLE": room.single["endpoint_id"],
        "MANAGER": room.manager["endpoint_id"],
        "FUNCTION": room.function,
        "TASK": room.task,
        "GROUP": room.group,
    }
    if isinstance(value, dict):
        return {filled(name, room): filled(item, room) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, room) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


async def knock(room: Room, caller: str, method: str, path: str, body: Any = None) -> httpx2.Response:
    token = room.tokens[caller]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer: httpx2.Response = await room.stage.web.request(method, path, json=body, headers=headers)
    return answer


@pytest.mark.parametrize(("method", "path"), list(ROWS), ids=str)
async def test_a_route_answers_each_caller_as_the_table_says(room: Room, method: str, path: str) -> None:
    parameters, body, expected = ROWS[method, path]
    where = path.format(**filled(parameters, room))
    got = {}
    for caller in reversed(CALLERS):  # the owner last: a deletion works once
        got[caller] = (await knock(room, caller, method, where, filled(body, room))).status_code
    assert got == dict(zip(CALLERS, expected, strict=True))


async def test_batch_status_leaves_out_what_belongs_to_others(room: Room) -> None:
    asked = {"task_ids": [room.task, str(uuid4())]}
    mine = (await knock(room, OWNER, "POST", "/v2/batch_status", asked)).json()
    theirs = (await knock(room, OTHER, "POST", "/v2/batch_status", asked)).json()
    assert set(mine["results"]) == {room.task}
    assert theirs == {"response": "batch", "results": {}}


async def test_a_group_of_somebody_else_takes_no_tasks(room: Room) -> None:
    asked = {"tasks": {room.function: [ARGUMENTS]}, "task_group_id": room.group}
    mickey = room.stage.everyone["mickey97@example.org"]
    single = (await mickey.register(ours="single"))["endpoint_id"]
    function = await mickey.register_function()
    asked["tasks"] = {function: [ARGUMENTS]}
    refused = await mickey.call("POST", f"/v3/endpoints/{single}/submit", asked, 403)
    assert refused["code"] == "FORBIDDEN"


async def test_a_task_id_of_somebody_else_is_a_conflict(room: Room) -> None:
    mickey = room.stage.everyone["mickey97@example.org"]
    single = (await mickey.register(ours="single"))["endpoint_id"]
    function = await mickey.register_function()
    asked = {"task_ids": {function: [room.task]}}
    assert (await mickey.submit(single, function, status=409, **asked))["code"] == "CONFLICT"


async def test_a_private_function_of_somebody_else_does_not_exist(room: Room) -> None:
    mickey = room.stage.everyone["mickey97@example.org"]
    refused = await mickey.submit(room.manager["endpoint_id"], room.function, status=404)
    assert room.function in refused["message"]


async def test_allowed_functions_hold_for_everybody_and_may_be_used_by_everybody(room: Room) -> None:
    mickey = room.stage.everyone["mickey97@example.org"]
    id_ = room.manager["endpoint_id"]
    await room.harper.register(id_, ours="manager", multi_user=True, allowed_functions=[room.function])
    shown = await mickey.call("GET", f"/v3/endpoints/{id_}/allowed_functions")
    assert shown == {"endpoint_id": id_, "restricted": True, "functions": [room.function]}
    await mickey.submit(id_, room.function, bundles=1)
    other = await room.harper.register_function()
    refused = await room.harper.submit(id_, other, status=403)
    assert refused["message"] == f"Function {other} not permitted on endpoint {id_}"


async def test_a_policy_demands_another_login(room: Room) -> None:
    policy = Policy(uuid4(), uuid4(), "campus", include=("example.com",))
    await room.stage.store.add_project(policy.project, room.harper.identity.id, "{}")
    await room.stage.store.add_policy(policy)
    id_ = room.manager["endpoint_id"]
    await room.harper.register(id_, ours="manager", multi_user=True, authentication_policy=str(policy.id))
    refused = await room.harper.submit(id_, room.function, status=403)
    assert refused["code"] == "AUTHENTICATION_POLICY_FAILED"
    demanded = refused["authorization_parameters"]
    assert demanded["session_required_policies"] == [str(policy.id)]
    assert demanded["session_required_single_domain"] == ["example.com"]


async def test_an_unprivileged_manager_serves_only_its_owner(room: Room) -> None:
    mickey = room.stage.everyone["mickey97@example.org"]
    personal = (await room.harper.register())["endpoint_id"]
    public = await room.harper.register_function(public=True)
    assert (await mickey.submit(personal, public, status=403))["code"] == "FORBIDDEN"


async def test_an_outsider_does_not_see_where_an_endpoint_lives(room: Room) -> None:
    path = f"/v2/endpoints/{room.manager['endpoint_id']}"
    assert (await knock(room, OWNER, "GET", path)).json()["hostname"] == "login1"
    assert (await knock(room, OTHER, "GET", path)).json()["hostname"] is None


QUEUES = ("commands", "tasks", "own tasks", "group", "results", "heartbeats")
KEYS = ("results", "own results", "heartbeats", "own heartbeats", "commands", "tasks", "group")
# who -> what it may read, where it may publish
POWERS: dict[str, tuple[set[str], set[str]]] = {
    "manager": ({"commands"}, {"heartbeats"}),
    "user endpoint": ({"own tasks"}, {"own results", "own heartbeats"}),
    "single": ({"tasks"}, {"single results", "single heartbeats"}),
    "reader": ({"group"}, set()),
    "another reader": (set(), set()),
}


@pytest.mark.parametrize("who", list(POWERS))
async def test_credentials_open_their_own_queues_and_no_other(room: Room, who: str) -> None:
    async with manager(room.manager) as site:
        await room.harper.submit(room.manager["endpoint_id"], room.function, bundles=1)
        started = credentials_in(await site.next_order())
        mickey = room.stage.everyone["mickey97@example.org"]
        urls = {
            "manager": room.manager["command_queue_info"]["connection_url"],
            "user endpoint": started["url"],
            "single": room.single["task_queue_info"]["connection_url"],
            "reader": (await room.harper.call("GET", "/v2/get_amqp_result_connection_url"))["connection_url"],
            "another reader": (await mickey.call("GET", "/v2/get_amqp_result_connection_url"))["connection_url"],
        }
        await room.harper.call("GET", f"/v2/taskgroup/{room.group}")
        assert await powers(urls[who], room, started["id"]) == POWERS[who]


async def powers(url: str, room: Room, user_endpoint: UUID) -> tuple[set[str], set[str]]:
    here, single = UUID(room.manager["endpoint_id"]), UUID(room.single["endpoint_id"])
    queues = {
        "commands": topology.commands_queue(here),
        "tasks": topology.tasks_queue(single),
        "own tasks": topology.tasks_queue(user_endpoint),
        "group": topology.group_queue(room.harper.identity.id, UUID(room.group)),
        "results": topology.RESULTS,
        "heartbeats": topology.HEARTBEATS,
    }
    keys = {
        "results": (topology.RESULTS, topology.results_key(here)),
        "own results": (topology.RESULTS, topology.results_key(user_endpoint)),
        "single results": (topology.RESULTS, topology.results_key(single)),
        "heartbeats": (topology.HEARTBEATS, topology.heartbeats_key(here)),
        "own heartbeats": (topology.HEARTBEATS, topology.heartbeats_key(user_endpoint)),
        "single heartbeats": (topology.HEARTBEATS, topology.heartbeats_key(single)),
        "commands": (topology.COMMANDS, topology.commands_queue(here)),
        "tasks": (topology.TASKS, topology.tasks_queue(single)),
        "group": ("", topology.group_queue(room.harper.identity.id, UUID(room.group))),
    }
    reads = {name for name, queue in queues.items() if await may_read(url, queue)}
    writes = {name for name, (exchange, key) in keys.items() if await may_write(url, exchange, key)}
    return reads, writes


async def may_read(url: str, queue: str) -> bool:
    """Reading the own queue a second time may fail for being exclusive, never for want of a right."""
    transport = AmqpTransport(url, label="reads", patience_s=2)
    await transport.open()
    try:
        state = await transport.state(queue)
        if state is None:
            return False
        consumers = state.consumers
        reading = transport.consume(queue)
        task = asyncio.ensure_future(anext(reading))
        try:
            async with asyncio.timeout(3):
                while not task.done():
                    now = await transport.state(queue)
                    if now is not None and now.consumers > consumers:
                        return True
                    await asyncio.sleep(0.01)
            return task.exception() is None
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, MusterError, StopAsyncIteration):
                await task
    except (MusterError, CredentialsRefused):
        return False
    finally:
        await transport.close()


async def may_write(url: str, exchange: str, key: str) -> bool:
    transport = AmqpTransport(url, label="writes", patience_s=2)
    await transport.open()
    try:
        await transport.publish([Outgoing(exchange, key, b"not a message")])
    except MusterError:
        return False
    finally:
        await transport.close()
    return True
