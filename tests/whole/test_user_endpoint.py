"""A real user endpoint process against a real broker, and everything that may happen to either."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.model.account import AccountKind, BrokerAccount
from muster.serialize import Serializer
from muster.transport.contract import Binding, Outgoing, QueueSpec
from muster.wire import bundle, envelope, topology
from muster.wire.bundle import ResultItem, TaskBundle, TaskItem
from muster.wire.command import BrokerCredentials, Payload, encode_json

THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 4\nheartbeat_period: 1\n"
PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\nheartbeat_period: 1\n"
DEADLINE_S = 30


def double(number: int) -> int:
    return 2 * number


def touch_and_wait(path: str) -> str:
    import os
    import pathlib
    import time

    with pathlib.Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not pathlib.Path(f"{path}.go").exists():
        time.sleep(0.02)
    return "went on"


class Site:
    """A broker, what the service would declare in it, and one user endpoint."""

    def __init__(self, home: Path, *, bundles: bool = True) -> None:
        self.home = home
        self.endpoint = uuid4()
        self.name = f"uep.{uuid4()}.{self.endpoint}"
        self.bundles = bundles
        self.password = uuid4().hex
        self.port = 0
        self.results: dict[UUID, list[ResultItem | envelope.ResultMessage]] = {}
        self.reports: list[dict[str, Any]] = []
        self.exits: list[asyncio.subprocess.Process] = []
        self.moved = asyncio.Condition()

    async def up(self) -> None:
        async def authorise(username: str, password: str) -> BrokerAccount | None:
            if password != self.password:
                return None
            return BrokerAccount(username, b"", AccountKind.USER_ENDPOINT, self.endpoint)

        self.broker = Broker(authorise)
        self.service = LocalTransport(self.broker)
        await self.service.open()
        tasks = topology.tasks_queue(self.endpoint)
        await self.service.declare(QueueSpec(tasks, [Binding("tasks", "direct", tasks)]))
        for name in ("results", "heartbeats"):
            await self.service.declare(QueueSpec(name, [Binding(name, "topic", f"*.{name}")]))
        _, self.port = await self.broker.start("127.0.0.1", self.port)
        self.readers = [asyncio.create_task(self._read("results")), asyncio.create_task(self._read("heartbeats"))]

    async def down(self) -> None:
        for reader in self.readers:
            reader.cancel()
        await asyncio.gather(*self.readers, return_exceptions=True)
        await self.service.close()
        await self.broker.stop()

    async def _read(self, queue: str) -> None:
        async for deliveries in self.service.consume(queue):
            async with self.moved:
                for delivery in deliveries:
                    self._note(queue, delivery)
                    delivery.ack()
                self.moved.notify_all()

    def _note(self, queue: str, delivery: Any) -> None:
        if queue == "heartbeats":
            assert delivery.routing_key == topology.heartbeats_key(self.endpoint)
            report = envelope.decode(delivery.body)
            assert isinstance(report, envelope.StatusReport)
            self.reports.append(report.state)
        elif delivery.content_type == bundle.RESULTS:
            for item in bundle.decode_results(delivery.body):
                self.results.setdefault(UUID(bytes=item.task), []).append(item)
        else:
            message = envelope.decode(delivery.body)
            assert isinstance(message, envelope.ResultMessage)
            self.results.setdefault(UUID(message.task_id), []).append(message)

    async def until(self, true: Callable[[], Any]) -> Any:
        async with asyncio.timeout(DEADLINE_S), self.moved:
            await self.moved.wait_for(true)
        return true()

    # -- the endpoint

    def payload(self, values: dict[str, Any] | None = None, **more: Any) -> bytes:
        url = f"amqp://{self.endpoint}:{self.password}@127.0.0.1:{self.port}/"
        tasks = topology.tasks_queue(self.endpoint)
        credentials = BrokerCredentials(
            endpoint_id=str(self.endpoint),
            task_queue_info=topology.consume_info(url, "tasks", tasks),
            result_queue_info=topology.publish_info(url, "results", topology.results_key(self.endpoint)),
            heartbeat_queue_info=topology.publish_info(url, "heartbeats", topology.heartbeats_key(self.endpoint)),
        )
        return encode_json(
            Payload(name=self.name, user_opts=values or {}, amqp_creds=credentials, bundles=int(self.bundles), **more)
        )

    async def start(
        self,
        template: str = THREADS,
        *,
        payload: bytes | None = None,
        digest: str | None = None,
        schema: str = "",
        environment: str = "",
        prepare: Callable[[], None] | None = None,
    ) -> asyncio.subprocess.Process:
        payload = self.payload() if payload is None else payload
        files = [memory(text.encode()) for text in (template, schema, environment, "")]
        alive, self.lifeline = os.pipe()
        named = zip(("template", "schema", "environment", "manager-config", "lifeline"), [*files, alive], strict=True)
        command = ["-I", "-m", "muster.endpoint", "--name", self.name, "--mapped", '{"globus": {"id": "x"}}']
        command += ["--payload-sha256", digest or hashlib.sha256(payload).hexdigest()]
        command += [part for name, file in named for part in (f"--{name}-fd", str(file))]
        stdin = memory(payload)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=stdin,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[*files, alive],
            env={"MUSTER_HOME": str(self.home), "PATH": os.environ["PATH"], "HOME": str(self.home)},
            preexec_fn=prepare,
        )
        for file in (*files, alive, stdin):
            os.close(file)
        self.exits.append(process)
        return process

    async def started(self, template: str = THREADS, **more: Any) -> asyncio.subprocess.Process:
        seen = len(self.reports)
        process = await self.start(template, **more)
        await self.until(lambda: any(report.get("active") for report in self.reports[seen:]))
        return process

    async def clear(self) -> None:
        for process in self.exits:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    @property
    def log(self) -> str:
        return (self.home / self.name / "endpoint.log").read_text()

    # -- tasks

    async def send(self, function: Any, *calls: tuple[Any, ...], official: bool = False, **more: Any) -> list[UUID]:
        serializer = Serializer()
        code, function_id = serializer.pack_function(function), more.pop("function_id", uuid4())
        tasks = [uuid4() for _ in calls]
        payloads = [serializer.pack_arguments(call, {}) for call in calls]
        if official:
            pairs = zip(tasks, payloads, strict=True)
            made = [official_task(task, payload, function_id, code, **more) for task, payload in pairs]
            messages = [self.task_message(body, "application/json", headers) for body, headers in made]
        else:
            items = [
                TaskItem(task.bytes, function_id.bytes, payload, **more)
                for task, payload in zip(tasks, payloads, strict=True)
            ]
            body = bundle.encode_tasks(TaskBundle({function_id.bytes: code}, items))
            messages = [self.task_message(body, bundle.TASKS)]
        await self.service.publish(messages)
        return tasks

    def task_message(self, body: bytes, content_type: str, headers: dict[str, Any] | None = None) -> Outgoing:
        return Outgoing("tasks", topology.tasks_queue(self.endpoint), body, content_type, headers=headers)

    async def ended(self, tasks: list[UUID]) -> list[Any]:
        await self.until(lambda: all(task in self.results for task in tasks))
        return [self.results[task][0] for task in tasks]

    async def waiting(self) -> int:
        state = await self.service.state(topology.tasks_queue(self.endpoint))
        assert state is not None
        return state.messages


def official_task(
    task: UUID, payload: str, function: UUID, code: str, *, resources: str = "null"
) -> tuple[bytes, dict[str, Any]]:
    headers = {"function_uuid": str(function), "task_uuid": str(task), "resource_specification": resources}
    return envelope.encode(envelope.TaskMessage(task_id=str(task), task_buffer=code + payload)), headers


def memory(content: bytes) -> int:
    file = os.memfd_create("handed over")
    os.write(file, content)
    return file


def value(data: str) -> Any:
    return Serializer().deserialize(data)


async def ends(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit status and the last line of what it said."""
    async with asyncio.timeout(DEADLINE_S):
        _, said = await process.communicate()
    lines = said.decode().strip().splitlines() or [""]
    assert process.returncode is not None
    return process.returncode, lines[-1]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.up()
    yield site
    await site.clear()
    await site.down()


async def test_it_checks_in_with_the_official_keys_and_ours(site: Site) -> None:
    await site.started()
    report = site.reports[0]
    assert report["active"] is True
    assert report["bundles"] == 1
    assert report["heartbeat_period"] == 1.0
    assert report["posix_uid"] == os.getuid()
    assert report["globus_matched_identity"] == "x"
    assert "ThreadPoolEngine" in report["config_raw"]
    assert (site.home / site.name).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("template", [THREADS, PROCESSES])
async def test_a_bundle_comes_back_complete(site: Site, template: str) -> None:
    await site.started(template)
    tasks = await site.send(double, *((n,) for n in range(100)))
    results = await site.ended(tasks)
    assert [value(item.data) for item in results] == [2 * n for n in range(100)]


async def test_official_messages_get_official_results(site: Site) -> None:
    site.bundles = False
    await site.started()
    tasks = await site.send(double, (21,), (4,), official=True)
    result = (await site.ended(tasks))[0]
    assert isinstance(result, envelope.ResultMessage)
    assert value(result.data) == 42
    assert result.details is not None
    assert result.details["endpoint_id"] == str(site.endpoint)
    assert [status.state for status in result.task_statuses] == ["execution-start", "execution-end"]


async def test_a_message_that_names_no_function_is_answered(site: Site) -> None:
    await site.started()
    task = uuid4()
    body = envelope.encode(envelope.TaskMessage(task_id=str(task), task_buffer="1\nx"))
    await site.service.publish([site.task_message(body, "application/json"), site.task_message(b"noise", "text/plain")])
    (result,) = await site.ended([task])
    assert result.error_code == "CouldNotExecuteUserTaskError"


async def test_other_functions_than_the_allowed_are_refused_on_site(site: Site) -> None:
    allowed, other = uuid4(), uuid4()
    await site.started(payload=site.payload(allowed_functions=[str(allowed)]))
    (good,) = await site.ended(await site.send(double, (1,), function_id=allowed))
    (bad,) = await site.ended(await site.send(double, (1,), function_id=other))
    assert good.error_code is None
    assert bad.error_code == "FUNCTION_NOT_ALLOWED"
    assert bad.error_message == f"Function {other} not permitted on endpoint {site.endpoint}"


async def test_resources_are_refused_by_an_engine_that_has_none(site: Site) -> None:
    await site.started()
    (result,) = await site.ended(await site.send(double, (1,), resources='{"num_nodes": 2}'))
    assert "resource_specification" in result.error_message


async def test_a_result_beyond_the_limit_is_an_error_that_says_so(site: Site) -> None:
    await site.started()
    (result,) = await site.ended(await site.send(lambda: "x" * (11 << 20), ()))
    assert result.error_code == "MaxResultSizeExceeded"
    assert re.fullmatch(r"MaxResultSizeExceeded\(\d+, 10485760\)", result.error_message)


async def test_a_killed_endpoint_never_runs_a_task_twice(site: Site) -> None:
    mark = site.home / "ran"
    first = await site.started(PROCESSES)
    running = await site.send(touch_and_wait, (str(mark),))
    await until_file(mark)
    first.kill()
    await first.wait()
    queued = await site.send(double, (3,))
    await site.started(PROCESSES)
    (lost,) = await site.ended(running)
    (done,) = await site.ended(queued)
    assert lost.error_code == "UserEndpointLost"
    assert value(done.data) == 6
    assert len(mark.read_text().splitlines()) == 1
    assert await site.waiting() == 0


async def test_a_broker_restart_loses_nothing(site: Site) -> None:
    mark = site.home / "ran"
    await site.started(PROCESSES)
    tasks = await site.send(touch_and_wait, (str(mark),))
    await until_file(mark)
    await site.down()
    let_go(mark)
    await site.up()
    (result,) = await site.ended(tasks)
    assert value(result.data) == "went on"
    assert value((await site.ended(await site.send(double, (4,))))[0].data) == 8


async def test_a_task_that_is_delivered_again_while_it_runs_runs_once(site: Site) -> None:
    mark = site.home / "ran"
    process = await site.started(PROCESSES)
    tasks = await site.send(touch_and_wait, (str(mark),))
    await until_file(mark)
    site.broker.disconnect([str(site.endpoint)])
    await site.ended(await site.send(double, (1,)))  # it is connected again, and has what was delivered before that
    let_go(mark)
    (result,) = await site.ended(tasks)
    assert value(result.data) == "went on"
    process.terminate()
    await ends(process)
    assert len(mark.read_text().splitlines()) == 1
    assert len(site.results[tasks[0]]) == 1
    assert await site.waiting() == 0


@pytest.mark.parametrize("how", ["signal", "lifeline"])
async def test_told_to_stop_it_finishes_says_goodbye_and_exits_0(site: Site, how: str) -> None:
    mark = site.home / "ran"
    process = await site.started()
    tasks = await site.send(touch_and_wait, (str(mark),))
    await until_file(mark)
    if how == "signal":
        process.terminate()
    else:
        os.close(site.lifeline)
    let_go(mark)
    (result,) = await site.ended(tasks)
    assert value(result.data) == "went on"
    assert (await ends(process))[0] == 0
    await site.until(lambda: site.reports[-1].get("active") is False)


async def test_what_did_not_run_goes_back_to_the_queue(site: Site) -> None:
    mark = site.home / "ran"
    process = await site.started("engine: {type: ThreadPoolEngine, max_workers: 1}\n")
    await site.send(touch_and_wait, (str(mark),))
    await until_file(mark)
    many = await site.send(double, *((n,) for n in range(200)))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # once is a wish, twice is a hurry
    await ends(process)
    assert await site.waiting() == 1
    await site.started()
    results = await site.ended(many)
    ran = [item for item in results if item.error_code is None]
    assert len(ran) >= 100
    assert {item.error_code for item in results} <= {None, "WorkerLost"}


async def test_a_payload_that_was_not_ordered_is_not_believed(site: Site) -> None:
    status, said = await ends(await site.start(digest="0" * 64))
    assert status != 0
    assert "not the one that was ordered" in said
    assert not (site.home / site.name).exists()


REFUSALS = {
    "a missing value": ("engine: {type: {{ ENGINE }}}", "", {}, "the template needs ENGINE"),
    "an unknown engine": ("engine: {type: ThredPoolEngine}", "", {}, "ThreadPoolEngine"),
    "a broken template": ("engine: {% if", "", {}, "line 1"),
    "a value the schema refuses": (
        THREADS,
        '{"properties": {"NODES": {"type": "integer", "maximum": 4}}}',
        {"NODES": 5},
        "NODES: 5 is greater than the maximum of 4",
    ),
    "a reserved name": (THREADS, "", {"_GC": 1}, "reserved"),
    "a failing setup": (THREADS + "endpoint_setup: exit 3\n", "", {}, "endpoint_setup ended with status 3"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_start_that_fails_says_why_on_both_ways(site: Site, case: str) -> None:
    template, schema, values, expected = REFUSALS[case]
    status, said = await ends(await site.start(template, schema=schema, payload=site.payload(values)))
    assert status == os.EX_CONFIG
    assert "could not start" not in said  # whoever tells the user adds that
    assert expected in said
    await site.until(lambda: site.reports)
    assert site.reports[0]["error"] == said
    assert site.reports[0]["code"] == "START_FAILED"
    assert site.reports[0]["heartbeat_period"] == 3


async def test_the_site_environment_reaches_tasks(site: Site) -> None:
    await site.started(PROCESSES, environment="SITE_VARIABLE: --additional_flag\nNUMBER: 5\n")

    def read() -> tuple[str, str]:
        import os

        return os.environ["SITE_VARIABLE"], os.environ["NUMBER"]

    assert value((await site.ended(await site.send(read, ())))[0].data) == ("--additional_flag", "5")


async def test_a_nested_environment_is_refused(site: Site) -> None:
    _, said = await ends(await site.start(environment="A:\n  B: c\n"))
    assert "A must be one value" in said


async def test_the_second_in_a_directory_learns_who_is_there(site: Site) -> None:
    first = await site.started()
    _, said = await ends(await site.start())
    assert f"process {first.pid} " in said


async def test_idle_long_enough_it_stops_by_itself(site: Site) -> None:
    process = await site.started(THREADS + "idle_heartbeats_soft: 1\n")
    await site.ended(await site.send(double, (1,)))
    assert (await ends(process))[0] == 0
    assert "idle_heartbeats_soft" in site.log


async def test_a_full_disk_stops_no_result(site: Site) -> None:
    def small_files() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    await site.started(prepare=small_files)
    tasks = await site.send(lambda n: str(n) * 3000, *((n,) for n in range(20)))
    results = await site.ended(tasks)
    assert [value(item.data)[:1] for item in results[:10]] == [str(n) for n in range(10)]
    await site.until(lambda: len(site.reports) > 1)
    assert await site.waiting() == 0
    assert "cannot be written to disk" in site.log


async def test_refused_credentials_end_it(site: Site) -> None:
    process = await site.started()
    site.password = "changed"
    site.broker.disconnect([str(site.endpoint)])
    assert (await ends(process))[0] == os.EX_NOPERM
    assert "credentials were refused" in site.log


def let_go(mark: Path) -> None:
    Path(f"{mark}.go").touch()


async def until_file(path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not (os.access(path, os.F_OK) and os.stat(path).st_size):  # noqa: ASYNC110, PTH116 another process's
            await asyncio.sleep(0.01)
