"""The service beside a RabbitMQ that asks it about every login, as in production."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from muster.errors import CredentialsRefused, MusterError
from muster.identity import People
from muster.store import open_store
from muster.testing.rabbitmq import RabbitMQ, find_rabbitmq, free_port
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Outgoing
from muster.wire import topology
from whole.service_stage import Person, manager, official_credentials_in, runner, soon, waiting
from whole.test_service_restart import logged_in, served

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]
SECRET = "s" * 32


class AskingRabbitMQ(RabbitMQ):
    """With the HTTP authorisation backend and the management API."""

    def __init__(self, directory: Path, service_port: int) -> None:
        super().__init__(directory)
        self._service_port = service_port
        self.management_port = free_port()

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    def _prepare(self) -> dict[str, str]:
        environment = super()._prepare()
        plugins = "[rabbitmq_auth_backend_http,rabbitmq_management].\n"
        (self._directory / "plugins").write_text(plugins)
        asked = "".join(
            f"auth_http.{kind}_path = http://127.0.0.1:{self._service_port}/broker/{SECRET}/{kind}\n"
            for kind in ("user", "vhost", "resource", "topic")
        )
        with (self._directory / "rabbitmq.conf").open("a") as settings:
            settings.write("auth_backends.1 = internal\nauth_backends.2 = http\nauth_http.http_method = post\n" + asked)
            settings.write(f"management.tcp.port = {self.management_port}\nmanagement.tcp.ip = 127.0.0.1\n")
        return environment


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def rabbit(tmp_path: Path, port: int) -> Iterator[AskingRabbitMQ]:
    if find_rabbitmq() is None:
        if os.environ.get("CI"):
            pytest.fail("no rabbitmq-server on this machine")
        pytest.skip("no rabbitmq-server on this machine")
    (tmp_path / "rabbit").mkdir()
    node = AskingRabbitMQ(tmp_path / "rabbit", port)
    node.start()
    try:
        yield node
    finally:
        node.stop()


async def test_the_whole_path_and_its_locks(tmp_path: Path, rabbit: AskingRabbitMQ, port: int) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    store = await open_store(f"sqlite:///{data}/muster.db")
    await store.setting("broker.secret", SECRET.encode())
    await People(store).add("harper@example.org")
    account = await People(store).add_client("laptop", "harper@example.org")
    await store.close()
    more = ["--amqp", rabbit.url, "--amqp-management", rabbit.management]
    async with httpx2.AsyncClient() as web:
        with served(data, port, rabbit.address[1], more) as process:
            harper = await logged_in(account, web, port)
            registered = await harper.register(multi_user=True)
            function = await harper.register_function()
            async with manager(registered) as site:
                answer = await harper.submit(registered["endpoint_id"], function, bundles=1)
                facts = official_credentials_in(await site.next_order())
                async with runner(facts["url"], facts["id"], bundles=False) as worker:
                    async with waiting(harper, answer["task_group_id"]) as arrived:
                        assert (await arrived.get()).body
                    await stays_in_its_own_lane(facts["url"], registered["endpoint_id"])
                    worker.answering = False
                    held = (await harper.submit(registered["endpoint_id"], function, bundles=1))["tasks"][function][0]

                    async def holds() -> bool:
                        return UUID(held) in worker.seen

                    await soon(holds)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    with served(data, port, rabbit.address[1], more):
                        await finishes_what_it_held(harper, worker.seen, worker.answer, held)
                        await ends_when_locked(harper, registered)


async def finishes_what_it_held(harper: Person, seen: list[UUID], answer: object, held: str) -> None:
    """The broker kept the queue, the user endpoint kept its connection: nothing is sent twice."""
    assert callable(answer)
    await answer([UUID(held)])
    assert (await harper.done(held))["status"] == "success"
    assert seen.count(UUID(held)) == 1


async def stays_in_its_own_lane(url: str, manager_id: str) -> None:
    transport = AmqpTransport(url, label="curious", patience_s=5)
    await transport.open()
    try:
        key = topology.heartbeats_key(UUID(manager_id))
        with pytest.raises(MusterError):
            await transport.publish([Outgoing(topology.HEARTBEATS, key, b"forged")])
        with pytest.raises(MusterError):
            await anext(transport.consume(topology.commands_queue(UUID(manager_id))))
    finally:
        await transport.close()


async def ends_when_locked(harper: Person, registered: dict[str, object]) -> None:
    await harper.call("POST", f"/v3/endpoints/{registered['endpoint_id']}/lock")
    where = registered["command_queue_info"]
    assert isinstance(where, dict)

    async def refused() -> bool:
        transport = AmqpTransport(where["connection_url"], label="late", patience_s=5)
        try:
            await transport.open()
        except CredentialsRefused:
            return True
        await transport.close()
        return False

    assert await soon(refused, within_s=30)
