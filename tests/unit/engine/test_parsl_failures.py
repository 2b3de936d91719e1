"""What happens to tasks when Parsl's own processes, or the batch jobs, fail."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from muster.engine.parsl.engine import ParslEngine
from muster.errors import ConfigInvalid
from muster.serialize import Serializer
from muster.wire.bundle import ResultItem, TaskItem

pytestmark = pytest.mark.slow
PACK = Serializer()


class Watched:
    def __init__(self, provider: dict[str, Any], **more: Any) -> None:
        self.engine = ParslEngine(max_workers_per_node=1, provider={"type": "LocalProvider", **provider}, **more)
        self.results: list[ResultItem] = []
        self.more = asyncio.Event()

    def deliver(self, items: list[ResultItem]) -> None:
        self.results += items
        self.more.set()

    def submit(self, function: Any, *args: Any) -> None:
        key = uuid4().bytes
        item = TaskItem(uuid4().bytes, key, PACK.pack_arguments(args, {}))
        self.engine.submit([item], {key: PACK.pack_function(function)})

    async def count(self, number: int, within_s: float = 40) -> list[ResultItem]:
        async with asyncio.timeout(within_s):
            while len(self.results) < number:
                self.more.clear()
                await self.more.wait()
        return self.results


async def written(file: Path) -> int:
    """The number that another process writes there."""
    async with asyncio.timeout(30):
        while not (file.exists() and file.read_text()):  # noqa: ASYNC110, ASYNC240 - a file cannot be awaited
            await asyncio.sleep(0.05)
    return int(file.read_text())  # noqa: ASYNC240


async def ended(pid: int) -> None:
    """Once nothing of that number runs."""
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def tell_and_sleep(path: str) -> None:
    import time

    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def abs_of(x: int) -> int:
    return abs(x)


async def test_blocks_that_die_young_fail_the_tasks_with_what_the_job_wrote(tmp_path: Path) -> None:
    watched = Watched({"worker_init": "echo no module named anaconda >&2; exit 3"})
    await watched.engine.start(tmp_path, watched.deliver)
    try:
        watched.submit(abs_of, -1)
        (result,) = await watched.count(1)
        assert result.error_code == "WorkerLost"
        assert "no module named anaconda" in (result.error_message or "")
        watched.submit(abs_of, -1)
        assert "no block" in ((await watched.count(2, within_s=2))[1].error_message or "")
    finally:
        await watched.engine.stop()


async def test_a_dead_interchange_costs_the_running_tasks_and_is_replaced(tmp_path: Path) -> None:
    watched = Watched({})
    await watched.engine.start(tmp_path, watched.deliver)
    try:
        watched.submit(abs_of, -1)
        await watched.count(1)
        watched.engine._executor.interchange_proc.send_signal(signal.SIGKILL)
        watched.submit(abs_of, -2)
        second = (await watched.count(2))[1]
        assert second.error_code in {None, "WorkerLost"}
        watched.submit(abs_of, -3)
        assert (await watched.count(3))[2].error_code is None
    finally:
        await watched.engine.stop()


async def test_a_lost_manager_fails_its_tasks_once_its_heartbeat_is_missed(tmp_path: Path) -> None:
    watched = Watched({}, heartbeat_period=1, heartbeat_threshold=3)
    await watched.engine.start(tmp_path, watched.deliver)
    try:
        watched.submit(abs_of, -1)
        await watched.count(1)
        watched.submit(os.kill, 0, 0)
        await watched.count(2)
        key = uuid4().bytes
        item = TaskItem(uuid4().bytes, key, PACK.pack_arguments((str(tmp_path / "pid"),), {}))
        watched.engine.submit([item], {key: PACK.pack_function(tell_and_sleep)})
        pid = await written(tmp_path / "pid")
        for pool in pools():
            pool.kill()
        assert (await watched.count(3))[2].error_code == "WorkerLost"
        watched.submit(abs_of, -3)
        assert (await watched.count(4))[3].error_code is None
        await ended(pid)
    finally:
        await watched.engine.stop()


async def test_idle_blocks_go_and_come_back(tmp_path: Path) -> None:
    watched = Watched({"init_blocks": 0}, strategy={"type": "SimpleStrategy", "max_idletime": 0.5})
    await watched.engine.start(tmp_path, watched.deliver)
    try:
        assert watched.engine._blocks.active == 0
        watched.submit(abs_of, -1)
        await watched.count(1)
        async with asyncio.timeout(15):
            while watched.engine._blocks.active:  # noqa: ASYNC110 - the scaling loop's own pace
                await asyncio.sleep(0.05)
        watched.submit(abs_of, -2)
        assert (await watched.count(2))[1].error_code is None
    finally:
        await watched.engine.stop()


async def test_wrong_arguments_of_the_provider_stop_the_start_with_their_path(tmp_path: Path) -> None:
    watched = Watched({"max_block": 3})
    with pytest.raises(ConfigInvalid, match=r"engine\.provider\.max_block"):
        await watched.engine.start(tmp_path, watched.deliver)


def pools() -> list[psutil.Process]:
    """Our own process_worker_pool programs."""
    mine = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "process_worker_pool" in line and f"{os.getpid()}" in _environment(process):
            mine.append(process)
    return mine


def _environment(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("MUSTER_TEST_PARENT", ""))
    except psutil.Error:
        return ""


@pytest.fixture(autouse=True)
def _marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TEST_PARENT", str(os.getpid()))


async def test_the_interchange_does_not_outlive_a_killed_endpoint(tmp_path: Path) -> None:
    program = f"""
import asyncio, time
from pathlib import Path
from muster.engine.parsl.engine import ParslEngine
async def main():
    engine = ParslEngine(provider={{"type": "LocalProvider", "init_blocks": 0}})
    await engine.start(Path({str(tmp_path)!r}), print)
    Path({str(tmp_path / "pid")!r}).write_text(str(engine._executor.interchange_proc.pid))
    await asyncio.sleep(100)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    pid = await written(tmp_path / "pid")
    parent.kill()
    await parent.wait()
    await ended(pid)
