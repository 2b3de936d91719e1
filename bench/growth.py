"""`python -m bench.growth`: does a task cost the same when there is much of everything? Part of `make bench`.

First 1 and then 200 user endpoints of one manager, idle but for the first; then 10^3 and 10^6 finished tasks stored.
Each time the same client measures the same user endpoint: medians of three runs.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from bench.site import Bench
from rich.console import Console
from rich.table import Table

from muster.testing.namespace import Namespace
from muster.testing.processes import BIN, Processes

CROWD, FILL = Path(__file__).with_name("crowd.py"), Path(__file__).with_name("fill.py")
HERE = "muster"
TASKS, RUNS, IDLE_S = 5000, 3, 5.0
FIRST, SECOND = 1.5, 1.1  # the ratios to reach


@contextlib.contextmanager
def opened() -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-growth-")))
        directory.chmod(0o755)
        space = stack.enter_context(Namespace(directory))
        bench = Bench(directory, stack.enter_context(Processes(space)), heartbeat_s=30)
        bench.start(HERE)
        yield bench


def measure(bench: Bench) -> dict[str, float]:
    """The first user endpoint, as it is now."""
    runs = [bench.one(HERE, HERE, "thread", TASKS, "first") for _ in range(RUNS)]
    figures = {name: statistics.median(run[name] for run in runs) for name in ("p50_ms", "p99_ms", "noop_per_s")}
    return figures | {"cpu_ms": statistics.median(sum(run["noop_cpu_ms"].values()) for run in runs)}


def idle(bench: Bench) -> dict[str, float]:
    """What it takes to be there: percent of one core and MB of memory, of the manager and all below it."""
    manager = psutil.Process(bench.endpoints[HERE][1].process.pid)
    everyone = [manager, *manager.children(recursive=True)]
    before = sum(sum(one.cpu_times()[:2]) for one in everyone)
    with contextlib.suppress(psutil.TimeoutExpired):
        manager.wait(IDLE_S)
    used_s = sum(sum(one.cpu_times()[:2]) for one in everyone) - before
    memory = sum(one.memory_full_info().pss for one in everyone) / 1e6
    return {"idle_cpu_percent": used_s / IDLE_S * 100, "idle_mb": memory}


def with_many_user_endpoints(count: int) -> dict[str, dict[str, float]]:
    with opened() as bench:
        measure(bench)
        few = measure(bench) | idle(bench)
        took_s = float(bench.client(HERE, CROWD, bench.endpoints[HERE][0], "thread", str(count - 1)))
        many = measure(bench) | idle(bench) | {"started_s": took_s}
    return {"1 user endpoint": few, f"{count} user endpoints": many}


def with_many_tasks(few: int, many: int) -> dict[str, dict[str, float]]:
    with opened() as bench:
        measure(bench)
        return {f"{count:,} tasks stored": filled(bench, count) for count in (few, many)}


def filled(bench: Bench, count: int) -> dict[str, float]:
    """The service is stopped, given this many tasks, and started again."""
    site = bench.site
    bench.service.stop()
    site.processes.running.remove(bench.service)
    fill = [str(BIN / "python"), str(FILL), f"sqlite:///{site.data}/muster.db", str(count)]
    took_s = float(site.processes.run(fill, account=site.operator, patience_s=300))
    begun = time.perf_counter()
    bench.service = site.serve()
    start_s = time.perf_counter() - begun
    return measure(bench) | {"service_start_s": start_s, "filled_s": took_s}


def run(user_endpoints: int = 200, tasks: int = 1_000_000) -> dict[str, dict[str, float]]:
    found = with_many_user_endpoints(user_endpoints)
    show("user endpoints of one manager", found)
    stored = with_many_tasks(1000, tasks)
    show("tasks stored", stored)
    return found | stored


def show(title: str, found: dict[str, dict[str, float]]) -> None:
    few, many = found.values()
    table = Table(title=title, title_justify="left")
    for head in ("", *found, "ratio", "target"):
        table.add_column(head, justify="right")
    for name in dict.fromkeys([*few, *many]):
        one, other = few.get(name), many.get(name)
        ratio = other / one if one and other else None
        goal = f"{FIRST} / {SECOND}" if name in {"p50_ms", "cpu_ms"} else ""
        cells = ["" if figure is None else f"{figure:.2f}" for figure in (one, other, ratio)]
        table.add_row(name, *cells, goal)
    Console(width=120).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--user-endpoints", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    run(arguments.user_endpoints, arguments.tasks)
