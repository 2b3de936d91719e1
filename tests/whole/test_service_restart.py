"""`muster serve` as a process: it is ready when it says so, stops when told, and loses nothing when killed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from muster.identity import NewClient, People
from muster.store import open_store
from muster.wire.rest import COMPUTE_SCOPE
from whole.service_stage import Person, manager, official_credentials_in, runner, waiting

SERVE = [sys.executable, "-m", "muster.cli.main", "serve"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def served(data: Path, port: int, amqp_port: int, more: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A running service that has said `ready`; killed at the end, however the test ends."""
    broker = more or ("--amqp-listen", f"127.0.0.1:{amqp_port}")
    command = [*SERVE, "--listen", f"127.0.0.1:{port}", "--data", str(data), *broker]
    with (data.parent / "service.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready http://127.0.0.1:{port} amqp://127.0.0.1:{amqp_port}\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
async def account(tmp_path: Path) -> NewClient:
    (tmp_path / "data").mkdir(mode=0o700)
    store = await open_store(f"sqlite:///{tmp_path}/data/muster.db")
    try:
        people = People(store)
        await people.add("harper@example.org")
        return await people.add_client("laptop", "harper@example.org")
    finally:
        await store.close()


@pytest.fixture
async def web() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient() as client:
        yield client


async def logged_in(account: NewClient, web: httpx2.AsyncClient, port: int) -> Person:
    web.base_url = f"http://127.0.0.1:{port}"
    answer = await web.post(
        "/v2/oauth2/token",
        data={"grant_type": "client_credentials", "scope": COMPUTE_SCOPE},
        auth=(str(account.client_id), account.client_secret),
    )
    return Person(account.identity, answer.json()["access_token"], web)


async def test_tasks_and_credentials_survive_kill_9(
    tmp_path: Path, account: NewClient, web: httpx2.AsyncClient
) -> None:
    port, amqp_port, data = free_port(), free_port(), tmp_path / "data"
    with served(data, port, amqp_port):
        harper = await logged_in(account, web, port)
        registered = await harper.register(ours="single")
        function = await harper.register_function()
        answer = await harper.submit(registered["endpoint_id"], function)
    task = answer["tasks"][function][0]
    with served(data, port, amqp_port):
        url = registered["task_queue_info"]["connection_url"]
        async with (
            waiting(harper, answer["task_group_id"]) as arrived,
            runner(url, UUID(registered["endpoint_id"]), bundles=True) as worker,
        ):
            await asyncio.wait_for(arrived.get(), 10)
            assert [str(id_) for id_ in worker.seen] == [task]
        assert (await harper.done(task))["status"] == "success"


async def test_a_start_goes_on_after_kill_9(tmp_path: Path, account: NewClient, web: httpx2.AsyncClient) -> None:
    port, amqp_port, data = free_port(), free_port(), tmp_path / "data"
    with served(data, port, amqp_port):
        harper = await logged_in(account, web, port)
        registered = await harper.register(multi_user=True)
        function = await harper.register_function()
        answer = await harper.submit(registered["endpoint_id"], function, bundles=1)
    with served(data, port, amqp_port):
        async with manager(registered) as site:
            facts = official_credentials_in(await site.next_order())
            async with runner(facts["url"], facts["id"], bundles=False):
                assert (await harper.done(answer["tasks"][function][0]))["status"] == "success"


async def test_a_result_nobody_fetched_is_there_after_kill_9(
    tmp_path: Path, account: NewClient, web: httpx2.AsyncClient
) -> None:
    port, amqp_port, data = free_port(), free_port(), tmp_path / "data"
    with served(data, port, amqp_port):
        harper = await logged_in(account, web, port)
        registered = await harper.register(ours="single")
        function = await harper.register_function()
        answer = await harper.submit(registered["endpoint_id"], function)
        url = registered["task_queue_info"]["connection_url"]
        async with runner(url, UUID(registered["endpoint_id"]), bundles=True):
            await harper.done(answer["tasks"][function][0])
    with served(data, port, amqp_port):
        async with waiting(harper, answer["task_group_id"]) as arrived:
            assert (await asyncio.wait_for(arrived.get(), 10)).body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_seconds_when_told(tmp_path: Path, number: int) -> None:
    with served(tmp_path / "data", free_port(), free_port()) as process:
        process.send_signal(number)
        assert process.wait(8) == 0


def refused(*arguments: str) -> str:
    answer = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert answer.returncode == 1, answer
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    return answer.stderr


def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        text = refused("--data", str(tmp_path / "data"), "--listen", place, "--amqp-listen", "127.0.0.1:0")
        assert place in text
        assert "--listen" in text
        text = refused("--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--amqp-listen", place)
        assert place in text
        assert "--amqp-listen" in text


def test_a_data_directory_that_cannot_be_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "choose another --data" in refused("--data", str(tmp_path / "file" / "data"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_data_directory_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    assert "belongs to uid 12345" in refused("--data", str(tmp_path))


def test_two_services_do_not_share_a_directory(tmp_path: Path) -> None:
    with served(tmp_path / "data", free_port(), free_port()):
        assert "another service is running there" in refused("--data", str(tmp_path / "data"))


def environment(text: str) -> dict[str, str]:
    pairs = (line.removeprefix("export ").split("=", 1) for line in text.splitlines() if line.startswith("export "))
    return dict(pairs)


def test_env_tells_the_official_clients_where_to_go(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path / "data", port, free_port()):
        told = subprocess.run(
            [sys.executable, "-m", "muster.cli.main", "env", "--data", str(tmp_path / "data")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert environment(told) == {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": f"http://127.0.0.1:{port}/",
        "MUSTER_SERVICE_URL": f"http://127.0.0.1:{port}",
    }
    assert f"muster relay http://127.0.0.1:{port}" in told


def call(url: str, **more: Any) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, **more), timeout=10) as answer:
        return json.loads(answer.read())


def test_a_relay_passes_requests_on(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path / "data", port, free_port()):
        relay = subprocess.Popen(
            [sys.executable, "-m", "muster.cli.main", "relay", f"http://127.0.0.1:{port}", "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert relay.stdout is not None
            place = relay.stdout.readline().split()[1]
            assert call(f"{place}/api/health")["status"] == "ok"
            form = {"data": b"grant_type=nonsense", "headers": {"Authorization": f"Basic {base64.b64encode(b'a:b')!r}"}}
            with pytest.raises(urllib.error.HTTPError) as refused_by_service:
                call(f"{place}/v2/oauth2/token", **form)
            assert refused_by_service.value.code in (400, 401)
            refused_by_service.value.close()
        finally:
            relay.terminate()
            relay.communicate()


def test_a_relay_says_when_nobody_is_behind_it(tmp_path: Path) -> None:
    relay = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "muster.cli.main",
            "relay",
            f"http://127.0.0.1:{free_port()}",
            "--listen",
            "127.0.0.1:0",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert relay.stdout is not None
        place = relay.stdout.readline().split()[1]
        with pytest.raises(urllib.error.HTTPError) as unreachable:
            call(f"{place}/api/health")
        assert unreachable.value.code == 503
        unreachable.value.close()
    finally:
        relay.terminate()
        relay.communicate()
