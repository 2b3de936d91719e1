"""What every engine promises: exactly one result for every task, whatever happens to its workers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from muster.engine.contract import Engine
from muster.engine.registry import build
from muster.serialize import Serializer
from muster.wire.bundle import ResultItem, TaskItem

CONFIGS: dict[str, dict[str, Any]] = {
    "thread": {"type": "ThreadPoolEngine", "max_workers": 2},
    "process": {"type": "ProcessPoolEngine", "max_workers": 2},
    "parsl": {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 2,
        "provider": {"type": "LocalProvider", "init_blocks": 1, "max_blocks": 1},
    },
}
ALL = ["thread", "process", pytest.param("parsl", marks=pytest.mark.slow)]
WITH_PROCESSES = ALL[1:]


class Drive:
    """An engine, what it delivered, and tasks to give it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.results: list[ResultItem] = []
        self.threads: set[int] = set()
        self.serializer = Serializer()
        self._more = asyncio.Event()

    def deliver(self, items: list[ResultItem]) -> None:
        self.threads.add(threading.get_ident())
        self.results += items
        self._more.set()

    def submit(
        self, function: Callable[..., Any], *calls: tuple[Any, ...], serializers: tuple[str, ...] = ()
    ) -> list[bytes]:
        key = uuid4().bytes
        pack = self.serializer.pack_arguments
        items = [TaskItem(uuid4().bytes, key, pack(args, {}), None, serializers) for args in calls]
        self.engine.submit(items, {key: self.serializer.pack_function(function)})
        return [item.task for item in items]

    async def outcomes(self, tasks: list[bytes], within_s: float = 40) -> list[ResultItem]:
        """Their results, in the order of the tasks, once all are there."""
        await self.until(lambda: {item.task for item in self.results} >= set(tasks), within_s)
        found = {item.task: item for item in self.results}
        return [found[task] for task in tasks]

    async def until(self, true: Callable[[], bool], within_s: float = 40) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self._more.clear()
                await self._more.wait()

    def value(self, item: ResultItem) -> Any:
        assert item.error_code is None, item.data
        return self.serializer.deserialize(item.data)


async def exists(path: Path, within_s: float = 40) -> str:
    """The text of a file that another process is about to write."""
    async with asyncio.timeout(within_s):
        while not (path.exists() and path.read_text()):  # noqa: ASYNC110, ASYNC240 - a file cannot be awaited
            await asyncio.sleep(0.01)
    return path.read_text()  # noqa: ASYNC240


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while alive(pid):  # noqa: ASYNC110 - somebody else's child
            await asyncio.sleep(0.01)


@pytest.fixture
async def drive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Drive]:
    name, more = request.param if isinstance(request.param, tuple) else (request.param, {})
    drive = Drive(build({**CONFIGS[name], **more}))
    await drive.engine.start(tmp_path, drive.deliver)
    yield drive
    await drive.engine.stop()
    assert len(drive.results) == len({item.task for item in drive.results}), "two results for one task"


def every(*names: Any, **more: Any) -> pytest.MarkDecorator:
    """Run on these engines, with these settings on top."""
    params = []
    for name in names:
        marks = getattr(name, "marks", ())
        plain = name if isinstance(name, str) else name.values[0]
        params.append(pytest.param((plain, more), marks=marks, id=plain))
    return pytest.mark.parametrize("drive", params, indirect=True)


def double(x: int) -> int:
    return 2 * x


def divide(a: float, b: float) -> float:
    return a / b


def leave_at_once() -> None:
    raise SystemExit(3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_unprintable() -> None:
    raise Unprintable


def recurse(n: int) -> int:
    return recurse(n + 1)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


def write_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def child_and_sleep(path: str) -> None:
    import subprocess

    child = subprocess.Popen(["sleep", "300"])
    Path(path).write_text(str(child.pid))
    time.sleep(60)


@every(*ALL)
async def test_every_task_of_two_thousand_gets_its_own_result_once(drive: Drive) -> None:
    tasks = drive.submit(double, *[(n,) for n in range(2000)])
    results = await drive.outcomes(tasks)
    assert [drive.value(item) for item in results] == [2 * n for n in range(2000)]
    assert len(drive.results) == 2000
    assert all(item.ended_ns >= item.started_ns > 0 for item in results if item.started_ns and item.ended_ns)


@every(*ALL)
async def test_what_user_code_raises_is_an_outcome_and_never_the_end_of_the_worker(drive: Drive) -> None:
    tasks = drive.submit(divide, (1, 0), (4, 2))
    tasks += drive.submit(leave_at_once, ()) + drive.submit(raise_unprintable, ()) + drive.submit(recurse, (0,))
    zero, fine, left, unprintable, deep = await drive.outcomes(tasks)
    assert drive.value(fine) == 2
    assert zero.error_code == "RemoteExecutionError"
    assert "ZeroDivisionError" in zero.data
    assert "divide" in zero.data
    assert "muster/worker" not in zero.data
    assert "SystemExit" in left.data
    assert "Unprintable" in unprintable.data
    assert "RecursionError" in deep.data
    assert len(deep.data) < 50_000
    assert [drive.value(item) for item in await drive.outcomes(drive.submit(double, (3,)))] == [6]


@every(*ALL)
async def test_results_come_on_the_thread_of_the_loop(drive: Drive) -> None:
    await drive.outcomes(drive.submit(double, (1,), (2,)))
    assert drive.threads == {threading.get_ident()}


@every(*ALL)
async def test_a_payload_and_a_result_of_five_megabytes_come_through(drive: Drive) -> None:
    text = random.Random(1).randbytes(2_500_000).hex()
    (result,) = await drive.outcomes(drive.submit(lambda x: x[::-1], (text,)))
    assert drive.value(result) == text[::-1]


@every(*ALL, result_size_limit=1000)
async def test_a_result_over_the_limit_is_refused_with_its_size(drive: Drive) -> None:
    big, small = await drive.outcomes(drive.submit(lambda n: "x" * n, (5000,), (10,)))
    assert big.error_code == "MaxResultSizeExceeded"
    assert big.data.endswith(", 1000)")
    assert drive.value(small) == "x" * 10


@every(*ALL)
async def test_the_named_result_serializer_writes_the_result(drive: Drive) -> None:
    path = "globus_compute_sdk.serialize.concretes.JSONData"
    (result,) = await drive.outcomes(drive.submit(double, (4,), serializers=(path,)))
    assert result.data == "11\n8"


@every(*ALL)
async def test_a_coroutine_function_is_awaited(drive: Drive) -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    (result,) = await drive.outcomes(drive.submit(later, (4,)))
    assert drive.value(result) == 5


@every(*ALL)
async def test_code_that_cannot_be_read_names_the_versions_and_what_to_do(drive: Drive) -> None:
    task, key = uuid4().bytes, uuid4().bytes
    drive.engine.submit([TaskItem(task, key, drive.serializer.pack_arguments((), {}))], {key: "8\n01\nabcd\n"})
    (result,) = await drive.outcomes([task])
    assert result.error_code == "DeserializationError"
    assert "Python" in result.data
    assert "Install" in result.data


@every(*ALL, allowed_serializers=["globus_compute_sdk.*Code", "globus_compute_sdk.serialize.JSONData"])
async def test_a_serializer_the_site_does_not_allow_is_refused_by_name(drive: Drive) -> None:
    (result,) = await drive.outcomes(drive.submit(double, (1,)))
    assert "DillDataBase64" in (result.error_message or "")


@every(*WITH_PROCESSES)
async def test_a_dead_worker_costs_the_task_it_ran_and_no_other(drive: Drive) -> None:
    await drive.outcomes(drive.submit(double, *[(n,) for n in range(50)]))
    tasks = drive.submit(double, *[(n,) for n in range(100)])
    killed = drive.submit(die, (signal.SIGKILL,))
    left = drive.submit(leave, (7,))
    tasks += drive.submit(double, *[(n,) for n in range(100, 200)])
    assert [drive.value(item) for item in await drive.outcomes(tasks)] == [2 * n for n in range(200)]
    assert [item.error_code for item in await drive.outcomes(killed + left)] == ["WorkerLost"] * 2
    messages = [item.error_message or "" for item in await drive.outcomes(killed + left)]
    assert "SIGKILL" in messages[0]
    assert "code 7" in messages[1]


@every(*ALL, task_timeout_s=0.5)
async def test_a_task_over_its_time_ends_alone(drive: Drive) -> None:
    long = drive.submit(time.sleep, (30,))
    short = drive.submit(double, *[(n,) for n in range(20)])
    assert [item.error_code for item in await drive.outcomes(long)] == ["TaskTimeout"]
    assert [drive.value(item) for item in await drive.outcomes(short)] == [2 * n for n in range(20)]


@every(*WITH_PROCESSES)
async def test_stop_ends_running_tasks_with_all_they_started_and_answers_for_them(drive: Drive, tmp_path: Path) -> None:
    running = drive.submit(child_and_sleep, (str(tmp_path / "pid"),))
    waiting = drive.submit(time.sleep, *[(60,)] * 10)
    grandchild = int(await exists(tmp_path / "pid"))
    began = time.monotonic()
    await drive.engine.stop()
    assert time.monotonic() - began < 8
    assert {item.error_code for item in await drive.outcomes(running + waiting)} == {"WorkerLost"}
    await gone(grandchild)


@every("thread")
async def test_stop_answers_for_calls_that_no_one_can_end(drive: Drive) -> None:
    release = threading.Event()
    _RELEASES["here"] = release
    tasks = drive.submit(_wait_here, *[()] * 5)
    await drive.engine.stop()
    assert {item.error_code for item in await drive.outcomes(tasks)} == {"WorkerLost"}
    release.set()


_RELEASES: dict[str, threading.Event] = {}


def _wait_here() -> None:
    _RELEASES["here"].wait(20)


@every(*ALL)
async def test_load_and_room_follow_the_work(drive: Drive, tmp_path: Path) -> None:
    first = drive.engine.room()
    assert first > 0
    tasks = drive.submit(time.sleep, *[(0.2,)] * 6)
    assert drive.engine.room() == max(0, first - 6)
    load = drive.engine.load()
    assert load.waiting + load.running == 6
    await drive.outcomes(tasks)
    load = drive.engine.load()
    assert (load.waiting, load.running) == (0, 0)
    assert load.workers == 2


@every("process")
async def test_short_tasks_behind_one_that_turns_out_long_are_taken_to_other_workers(
    drive: Drive, tmp_path: Path
) -> None:
    def short_or_long(path: str | None) -> None:
        if path:
            write_and_sleep(path)

    await drive.outcomes(drive.submit(short_or_long, *[(None,)] * 50))
    drive.submit(short_or_long, (str(tmp_path / "started"),), *[(None,)] * 60)
    await drive.until(lambda: len(drive.results) == 110, within_s=10)


@every("process")
async def test_a_worker_that_is_killed_from_outside_while_idle_is_replaced(drive: Drive) -> None:
    first = {drive.value(item) for item in await drive.outcomes(drive.submit(os.getpid, *[()] * 20))}
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    second = {drive.value(item) for item in await drive.outcomes(drive.submit(os.getpid, *[()] * 20))}
    assert not first & second


@every("process")
async def test_a_fork_that_returns_into_the_worker_answers_once(drive: Drive) -> None:
    results = await drive.outcomes(drive.submit(lambda: os.fork() == 0, *[()] * 5))
    assert [drive.value(item) for item in results] == [False] * 5


@every("process", run_in_sandbox=True)
async def test_a_sandbox_is_a_directory_of_its_own_for_each_task(drive: Drive) -> None:
    def where() -> tuple[str, str, str]:
        return str(Path.cwd()), os.environ["GC_TASK_SANDBOX_DIR"], os.environ["GC_TASK_UUID"]

    tasks = drive.submit(where, (), ())
    found = [drive.value(item) for item in await drive.outcomes(tasks)]
    assert all(folder == named and folder.endswith(uuid) for folder, named, uuid in found)
    assert {uuid.replace("-", "") for _, _, uuid in found} == {task.hex() for task in tasks}
