"""A single-user endpoint process: it registers over HTTP, keeps its id, and runs tasks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.model.account import AccountKind, BrokerAccount
from muster.serialize import Serializer
from muster.transport.contract import Binding, Outgoing, QueueSpec
from muster.wire import bundle, topology
from muster.wire.bundle import TaskBundle, TaskItem
from muster.wire.command import encode_json
from muster.wire.rest import Registered

PROGRAM = """
import sys
from pathlib import Path
from muster.endpoint.single import run
from muster.errors import MusterError
from muster.rest import Rest

class Token:
    def token(self, resource_server, force=False):
        return "of harper"

try:
    run(Path(sys.argv[1]), rest=Rest(sys.argv[2], Token()), ready=lambda id: print(id, flush=True))
except MusterError as why:
    sys.exit(why.message())
"""
DEADLINE_S = 30


def double(number: int) -> int:
    return 2 * number


class Desk:
    """The two routes of the service that matter here, and its broker, which knows the last password only."""

    def __init__(self) -> None:
        self.endpoint = uuid4()
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.password = ""
        self.outcomes: dict[bytes, Any] = {}
        self.moved = asyncio.Condition()

    async def up(self) -> None:
        async def authorise(username: str, password: str) -> BrokerAccount | None:
            right = password == self.password
            return BrokerAccount(username, b"", AccountKind.USER_ENDPOINT, self.endpoint) if right else None

        self.broker = Broker(authorise)
        self.service = LocalTransport(self.broker)
        await self.service.open()
        self.tasks = topology.tasks_queue(self.endpoint)
        await self.service.declare(QueueSpec(self.tasks, [Binding("tasks", "direct", self.tasks)]))
        for name in ("results", "heartbeats"):
            await self.service.declare(QueueSpec(name, [Binding(name, "topic", f"*.{name}")]))
        _, self.port = await self.broker.start("127.0.0.1", 0)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.reader = asyncio.create_task(self._read())

    async def down(self) -> None:
        self.reader.cancel()
        await asyncio.gather(self.reader, return_exceptions=True)
        await asyncio.to_thread(self.http.shutdown)
        self.http.server_close()
        await self.service.close()
        await self.broker.stop()

    def register(self, method: str, path: str, body: dict[str, Any]) -> bytes:
        self.asked.append((method, path, body))
        self.password = uuid4().hex
        url = f"amqp://{self.endpoint}:{self.password}@127.0.0.1:{self.port}/"
        answer = Registered(
            endpoint_id=str(self.endpoint),
            heartbeat_queue_info=topology.publish_info(url, "heartbeats", topology.heartbeats_key(self.endpoint)),
            task_queue_info=topology.consume_info(url, "tasks", self.tasks),
            result_queue_info=topology.publish_info(url, "results", topology.results_key(self.endpoint)),
            bundles=1,
        )
        return encode_json(answer)

    async def call(self, number: int) -> Any:
        serializer, task, function = Serializer(), uuid4().bytes, uuid4().bytes
        tasks = TaskBundle(
            {function: serializer.pack_function(double)},
            [TaskItem(task, function, serializer.pack_arguments((number,), {}))],
        )
        await self.service.publish([Outgoing("tasks", self.tasks, bundle.encode_tasks(tasks), bundle.TASKS)])
        async with asyncio.timeout(DEADLINE_S), self.moved:
            await self.moved.wait_for(lambda: task in self.outcomes)
        return serializer.deserialize(self.outcomes[task].data)

    async def _read(self) -> None:
        async for deliveries in self.service.consume("results"):
            async with self.moved:
                for delivery in deliveries:
                    self.outcomes |= {item.task: item for item in bundle.decode_results(delivery.body)}
                    delivery.ack()
                self.moved.notify_all()


def handler(desk: Desk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            content = desk.register(self.command, self.path, body)
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = answer  # noqa: N815 the names of http.server

        def log_message(self, *_: Any) -> None:
            """Silence."""

    return Handler


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.up()
    yield desk
    await desk.down()


@pytest.fixture
async def start(desk: Desk, tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "config.yaml").write_text(
        "engine: {type: ThreadPoolEngine}\ndisplay_name: Mine\nheartbeat_period: 1\n"
    )
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", PROGRAM, str(directory), desk.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ready(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        return (await process.stdout.readline()).decode().strip()


async def test_it_registers_runs_tasks_and_keeps_its_id(desk: Desk, start: Callable[[], Any]) -> None:
    first = await start()
    assert await ready(first) == str(desk.endpoint)
    assert await desk.call(21) == 42
    first.terminate()
    async with asyncio.timeout(DEADLINE_S):
        assert await first.wait() == 0
    second = await start()
    assert await ready(second) == str(desk.endpoint)
    assert [(method, path) for method, path, _ in desk.asked] == [
        ("POST", "/v3/endpoints"),
        ("PUT", f"/v3/endpoints/{desk.endpoint}"),
    ]
    registration = desk.asked[0][2]
    assert registration["endpoint_name"] == "mine"
    assert registration["display_name"] == "Mine"
    assert registration["muster"]["kind"] == "single"
    assert registration["muster"]["bundles"] == 1


async def test_a_service_that_forgot_its_credentials_gives_it_new_ones(desk: Desk, start: Callable[[], Any]) -> None:
    process = await start()
    await ready(process)
    desk.password = "forgotten"
    desk.broker.disconnect([str(desk.endpoint)])
    assert await desk.call(4) == 8
    assert [method for method, _, _ in desk.asked] == ["POST", "PUT"]


async def test_a_second_one_in_the_directory_is_refused(desk: Desk, start: Callable[[], Any]) -> None:
    first = await start()
    await ready(first)
    second = await start()
    _, said = await second.communicate()
    assert f"process {first.pid} " in said.decode()
    assert len(desk.asked) == 1
