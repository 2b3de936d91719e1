"""What each engine does with calls that do nothing: `python bench/engines.py [thread process parsl]`, a minute at most.

The CPU figure holds this process and the children it waits for; Parsl's managers and workers are not among them.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from muster.engine.registry import build
from muster.serialize import Serializer
from muster.wire.bundle import ResultItem, TaskItem

CONFIGS: dict[str, dict[str, Any]] = {
    "thread": {"type": "ThreadPoolEngine", "max_workers": 2},
    "process": {"type": "ProcessPoolEngine", "max_workers": 2},
    "parsl": {"type": "GlobusComputeEngine", "max_workers_per_node": 2, "provider": {"type": "LocalProvider"}},
}
TASKS, CALLS, LIMIT_S = 20_000, 300, 60
PACK = Serializer()


def nothing() -> None:
    return None


def cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


async def measure(name: str, folder: Path) -> None:
    key, count, more = uuid4().bytes, 0, asyncio.Event()
    code, payload = {key: PACK.pack_function(nothing)}, PACK.pack_arguments((), {})

    def deliver(items: list[ResultItem]) -> None:
        nonlocal count
        assert not any(item.error_code for item in items), items[0]
        count += len(items)
        more.set()

    async def run(number: int) -> float:
        goal, tasks = count + number, [TaskItem(uuid4().bytes, key, payload) for _ in range(number)]
        began = time.perf_counter()
        engine.submit(tasks, code)
        while count < goal:
            more.clear()
            await more.wait()
        return time.perf_counter() - began

    began, cpu = time.perf_counter(), cpu_s()
    engine = build(CONFIGS[name])
    await engine.start(folder, deliver)
    await run(1)
    first_s = time.perf_counter() - began
    single = sorted([await run(1) for _ in range(CALLS)])
    batch_s = await run(TASKS)
    await engine.stop()
    cpu_ms = (cpu_s() - cpu) * 1000 / (TASKS + CALLS + 1)
    print(
        f"{name:8} {TASKS / batch_s:>9,.0f} tasks/s   {cpu_ms:.3f} ms CPU a task (start included)   "
        f"p50 {single[CALLS // 2] * 1000:.2f} ms   p99 {single[CALLS * 99 // 100] * 1000:.2f} ms   "
        f"first result {first_s:.2f} s"
    )


async def main() -> None:
    for name in sys.argv[1:] or list(CONFIGS):
        with TemporaryDirectory() as folder:
            async with asyncio.timeout(LIMIT_S):
                await measure(name, Path(folder))


if __name__ == "__main__":
    asyncio.run(main())
