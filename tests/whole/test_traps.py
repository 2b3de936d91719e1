"""Every trap of the official protocol that we know of, and the test that shows we do not fall into it."""

from __future__ import annotations

import ast
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from muster.broker.server import Broker
from muster.cli.gates import EmbeddedGate, RabbitGate
from muster.errors import MusterError, Refusal
from muster.service import Settings
from muster.transport.amqp import AmqpTransport
from muster.wire.envelope import ResultMessage, decode
from muster.wire.rest import status_of
from whole.service_stage import (
    QUICK,
    Person,
    Site,
    Stage,
    manager,
    next_of,
    official_credentials_in,
    report,
    runner,
    serving,
    soon,
    waiting,
)

HERE = "whole/test_traps.py"
SHAPES = "unit/identity/test_token_shapes.py"
STDIN_LIMIT_BYTES = 64 * 1024 - 256
TRAPS: dict[int, tuple[str, list[str]]] = {
    1: (
        "only http://localhost:5000 can be configured",
        ["whole/test_service_restart.py::test_env_tells_the_official_clients_where_to_go"],
    ),
    2: (
        "the identity URL must end with a slash",
        ["unit/cli/test_serve_plan.py::test_the_auth_url_ends_with_a_slash"],
    ),
    3: (
        "a submit that is answered late, or with 5xx, is repeated",
        [
            f"{HERE}::test_a_refusal_is_never_an_answer_that_clients_repeat",
            f"{HERE}::test_a_post_is_answered_long_before_a_client_gives_up",
            "whole/test_service_flow.py::test_repeating_a_post_with_task_ids_changes_nothing",
        ],
    ),
    4: (
        "a registration without multi_user wants a command queue, too",
        ["whole/test_official_answers.py::test_a_task_from_its_post_to_its_result"],
    ),
    5: (
        "versions under both keys, and without a token",
        ["whole/test_official_answers.py::test_the_version"],
    ),
    6: (
        "one token in answer to a grant for one resource server, and a refresh token again",
        [
            f"{SHAPES}::test_a_service_account_gets_exactly_one_token_though_it_repeats_its_scope",
            f"{SHAPES}::test_a_renewal_gives_exactly_one_token_and_repeats_a_refresh_token",
        ],
    ),
    7: (
        "only the first key is used",
        [f"{SHAPES}::test_the_id_token_is_signed_by_the_first_key_and_names_the_person"],
    ),
    8: (
        "an identity without a usable status is unmappable",
        [f"{HERE}::test_every_identity_of_an_order_can_be_mapped"],
    ),
    9: (
        "an error under the manager's own id",
        ["whole/test_service_launches.py::test_an_error_under_the_managers_own_id_does_not_make_it_offline"],
    ),
    10: (
        "an order may be swallowed",
        ["whole/test_service_launches.py::test_an_order_is_said_again_until_somebody_checks_in"],
    ),
    11: (
        "a heartbeat does not say that somebody lives",
        ["whole/test_service_launches.py::test_a_user_endpoint_that_goes_without_a_word_is_started_again"],
    ),
    12: (
        "a user endpoint may exit between heartbeats",
        [f"{HERE}::test_an_order_goes_with_a_submit_to_a_user_endpoint_that_is_up"],
    ),
    13: (
        "after a kill no successor starts for a while",
        [f"{HERE}::test_a_stale_file_of_a_killed_user_endpoint_only_delays_its_tasks"],
    ),
    14: (
        "revoking at once makes the agent's own stop fail",
        ["whole/test_service_launches.py::test_locking_disconnects_after_a_moment_and_refuses_registration"],
    ),
    15: (
        "lengths are in characters",
        ["unit/wire/test_official_vectors.py::test_lengths_count_characters_and_not_bytes"],
    ),
    16: (
        "source code is wrapped by the service",
        ["whole/test_service_flow.py::test_source_code_is_wrapped_by_the_service"],
    ),
    17: (
        "completion_t is text, and decides",
        [f"{HERE}::test_completion_is_a_text_that_is_there_exactly_when_the_task_has_ended"],
    ),
    18: (
        "a message without both ids is never executed",
        [
            "whole/test_service_flow.py::test_an_official_client_and_an_official_manager_meet",
            "whole/test_user_endpoint.py::test_a_message_that_names_no_function_is_answered",
        ],
    ),
    19: (
        "the default exchange cannot be declared",
        [
            f"{HERE}::test_every_exchange_has_a_name_and_every_url_the_port_that_is_meant",
            "unit/broker/test_broker_pika.py::test_a_publisher_looks_then_publishes_with_confirms",
        ],
    ),
    20: (
        "anything but a result in a group's queue comes back for ever",
        [f"{HERE}::test_only_results_reach_the_queue_of_an_official_client_even_when_the_start_failed"],
    ),
    21: (
        "values arrive in templates with quotes",
        ["unit/endpoint/test_endpoint_template.py::test_values_compare_as_plain_text_and_as_json"],
    ),
    22: (
        "what a user endpoint is told must fit a pipe",
        [f"{HERE}::test_the_largest_order_fits_the_pipe_of_an_official_manager"],
    ),
    23: (
        "sequential submits are throttled",
        ["unit/sdk/test_executor.py::test_submits_one_after_another_are_not_throttled"],
    ),
    24: (
        "bodies can be forged",
        [
            "whole/test_service_flow.py::test_a_result_of_somebody_elses_task_is_ignored",
            "whole/test_service_doors.py::test_credentials_open_their_own_queues_and_no_other",
            "whole/test_service_launches.py::test_a_manager_cannot_end_the_tasks_of_another",
        ],
    ),
    25: (
        "trust for TLS travels in the URL or not at all",
        [f"{HERE}::test_the_public_address_keeps_its_tls_options_with_every_credential"],
    ),
    26: (
        "amqp_port of an agent has no effect",
        [f"{HERE}::test_every_exchange_has_a_name_and_every_url_the_port_that_is_meant"],
    ),
    27: (
        "an interpreter in a closed directory",
        ["root/test_monitor.py::test_a_closed_interpreter_is_named"],
    ),
}
TESTS = Path(__file__).parents[1]
ANSWERS = sorted({node for _, nodes in TRAPS.values() for node in nodes})


def refusals() -> list[type[MusterError]]:
    todo, found = [Refusal], []
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__name__)


@dataclass
class Play:
    """A service, an official manager that is connected, and somebody with a function."""

    stage: Stage
    harper: Person
    registered: dict[str, Any]
    function: str
    site: Site

    @property
    def endpoint(self) -> str:
        return str(self.registered["endpoint_id"])

    async def fails(self, id_: Any, text: str) -> None:
        """What an official manager reports for a user endpoint that could not start."""
        await report_as_manager(self, id_, {"error": text, "heartbeat_period": 3})


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(serving(tmp_path, QUICK))
        harper = await stage.person("harper")
        registered = await harper.register(multi_user=True)
        function = await harper.register_function()
        site = await stack.enter_async_context(manager(registered))
        await site.beat()
        yield Play(stage, harper, registered, function, site)


async def report_as_manager(play: Play, order: Any, state: dict[str, Any]) -> None:
    """Failure reports go out with the credentials that the command brought for the user endpoint."""
    facts = official_credentials_in(order)
    transport = AmqpTransport(facts["url"], label="agent")
    await transport.open()
    try:
        await report(transport, facts["id"], state)
    finally:
        await transport.close()


async def nobody(_username: str, _password: str) -> None:
    """The broker knows no one."""


def test_every_trap_is_answered() -> None:
    assert list(TRAPS) == list(range(1, 28))
    assert all(nodes for _, nodes in TRAPS.values())


@pytest.mark.parametrize("node", ANSWERS)
def test_the_answer_to_a_trap_exists(node: str) -> None:
    file, _, name = node.partition("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {one.name for one in tree.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("kind", refusals())
def test_a_refusal_is_never_an_answer_that_clients_repeat(kind: type[MusterError]) -> None:
    assert status_of(kind()) in {401, 403, 404, 409, 413, 422, 423}


def test_a_post_is_answered_long_before_a_client_gives_up() -> None:
    assert Settings().submit_wait_s <= 30


async def test_every_identity_of_an_order_can_be_mapped(play: Play) -> None:
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function))
    order = await play.site.next_order()
    identities = json.loads(order.body)["globus_identity_set"]
    assert identities
    for identity in identities:
        assert identity["status"] in {"used", "private"}
        assert identity["id"] == identity["sub"]
        assert isinstance(identity["username"], str)
    facts = official_credentials_in(order)
    async with runner(facts["url"], facts["id"], bundles=False):
        await posted


async def test_an_order_goes_with_a_submit_to_a_user_endpoint_that_is_up(play: Play) -> None:
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function))
    facts = official_credentials_in(await play.site.next_order())
    async with runner(facts["url"], facts["id"], bundles=False):
        first = await posted
        await play.harper.done(first["tasks"][play.function][0])
        while not play.site.orders.empty():
            play.site.orders.get_nowait()
        await play.harper.submit(play.endpoint, play.function)
        assert official_credentials_in(await play.site.next_order())["id"] == facts["id"]


async def test_a_stale_file_of_a_killed_user_endpoint_only_delays_its_tasks(play: Play) -> None:
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function))
    order = await play.site.next_order()
    text = "Failed to start or unexpected error:\n  (SystemExit) 73\nAnother instance of this endpoint is running"
    await play.fails(order, text)
    again = official_credentials_in(await play.site.next_order())
    assert again["id"] == official_credentials_in(order)["id"]
    async with runner(again["url"], again["id"], bundles=False):
        task = (await posted)["tasks"][play.function][0]
        assert (await play.harper.done(task))["status"] == "success"


async def test_completion_is_a_text_that_is_there_exactly_when_the_task_has_ended(play: Play) -> None:
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function))
    facts = official_credentials_in(await play.site.next_order())
    async with runner(facts["url"], facts["id"], bundles=False, answering=False) as worker:
        task = (await posted)["tasks"][play.function][0]

        async def arrived() -> bool:
            return bool(worker.seen)

        await soon(arrived)
        before = await play.harper.call("GET", f"/v2/tasks/{task}")
        assert before["status"] not in {"success", "failed"}
        assert not {"completion_t", "result", "exception"} & set(before)
        await worker.answer(worker.seen)
        after = await play.harper.done(task)
    assert isinstance(after["completion_t"], str)
    assert abs(float(after["completion_t"]) - time.time()) < 60
    assert (after["task_id"], after["status"]) == (task, "success")


async def test_every_exchange_has_a_name_and_every_url_the_port_that_is_meant(play: Play) -> None:
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function))
    order = await play.site.next_order()
    credentials = json.loads(order.body)["kwargs"]["amqp_creds"]
    infos = [play.registered["command_queue_info"], play.registered["heartbeat_queue_info"]]
    infos += [info for name, info in credentials.items() if name.endswith("_queue_info")]
    assert len(infos) == 5
    assert all(info["exchange"] and info["queue"] for info in infos)
    for info in infos:
        published = info.get("queue_publish_kwargs")
        assert published is None or published["exchange"] == info["exchange"]
    results = await play.harper.call("GET", "/v2/get_amqp_result_connection_url")
    ports = {urlsplit(info["connection_url"]).port for info in [*infos, results]}
    assert len(ports) == 1
    assert None not in ports
    facts = official_credentials_in(order)
    async with runner(facts["url"], facts["id"], bundles=False):
        await posted


async def test_only_results_reach_the_queue_of_an_official_client_even_when_the_start_failed(play: Play) -> None:
    group = "8db44947-94d0-48fb-a586-48e34eb73b69"
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function, task_group_id=group, status=422))
    await play.fails(await play.site.next_order(), "Ignoring start request for untrusted identity.")
    await posted
    async with waiting(play.harper, group) as arrived:
        message = decode((await next_of(arrived)).body)
    assert isinstance(message, ResultMessage)
    assert message.error_details is not None
    assert message.error_details.code == "START_FAILED"


async def test_the_largest_order_fits_the_pipe_of_an_official_manager(play: Play) -> None:
    largest = {"init": "x" * (QUICK.max_config_bytes - 100)}
    await play.harper.submit(
        play.endpoint, play.function, user_endpoint_config=largest | {"more": "y" * 200}, status=422
    )
    posted = asyncio.create_task(play.harper.submit(play.endpoint, play.function, user_endpoint_config=largest))
    order = await play.site.next_order()
    kwargs = json.loads(order.body)["kwargs"]
    told = {"amqp_creds": kwargs["amqp_creds"], "config": json.dumps(kwargs["user_opts"]), "ep_info": {}}
    assert len(json.dumps(told)) < STDIN_LIMIT_BYTES
    facts = official_credentials_in(order)
    async with runner(facts["url"], facts["id"], bundles=False):
        await posted


def test_the_public_address_keeps_its_tls_options_with_every_credential() -> None:
    options = "%7B%27cadata%27%3A%20%27PEM%27%7D"
    place = f"amqps://broker.example.org:5671/%2F?ssl_options={options}"
    for gate in (EmbeddedGate(Broker(nobody), place), RabbitGate("amqp://guest:guest@127.0.0.1/", place, None)):
        parts = urlsplit(gate.url("worker", "s3/cr:et"))
        assert (parts.scheme, parts.hostname, parts.port, parts.path) == ("amqps", "broker.example.org", 5671, "/%2F")
        assert parse_qs(parts.query) == {"ssl_options": ["{'cadata': 'PEM'}"]}
        assert parts.username == "worker"
