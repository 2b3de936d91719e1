"""Run with either SDK: `client.py PACKAGE ENDPOINT CONFIG_JSON TASKS NAME=PID[,uid:UID]…` prints one JSON line."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

PACKAGE, ENDPOINT, CONFIG, TASKS = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
PARTS = dict(part.split("=") for part in sys.argv[5:])
TICK = os.sysconf("SC_CLK_TCK")


def nothing():
    return None


def echo(value):
    return value


def cpu_s(places: str) -> float:
    """CPU seconds of these processes, all below them, and all of these accounts (blocks leave the tree)."""
    below: dict[str, list[str]] = {}
    times: dict[str, float] = {}
    todo = []
    wanted = places.split(",")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            owner = f"uid:{entry.stat().st_uid}"
        except OSError:
            continue
        below.setdefault(fields[1], []).append(entry.name)
        times[entry.name] = sum(map(int, fields[11:15])) / TICK
        if owner in wanted or entry.name in wanted:
            todo.append(entry.name)
    seen: set[str] = set()
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo += below.get(one, [])
    return sum(times.get(one, 0.0) for one in seen)


def all_cpu_s() -> dict[str, float]:
    return {part: cpu_s(places) for part, places in PARTS.items()} | {"sdk": cpu_s(str(os.getpid()))}


def main() -> None:
    sdk = importlib.import_module(PACKAGE)
    told: dict[str, object] = {}
    batch = {} if PACKAGE == "muster" else {"batch_size": 1000}
    with sdk.Executor(endpoint_id=ENDPOINT, user_endpoint_config=CONFIG, api_burst_limit=1, **batch) as ex:
        begun = time.perf_counter()
        ex.submit(nothing).result(120)
        told["cold_s"] = time.perf_counter() - begun
        for _ in range(20):
            ex.submit(nothing).result(120)
        trips = []
        for _ in range(200 if PACKAGE == "muster" else 40):
            begun = time.perf_counter()
            ex.submit(nothing).result(120)
            trips.append((time.perf_counter() - begun) * 1000)
        told["p50_ms"] = statistics.median(trips)
        told["p99_ms"] = statistics.quantiles(trips, n=100)[98]
        for name, argument, function in (("noop", None, nothing), ("kilobyte", "x" * 1024, echo)):
            arguments = () if argument is None else (argument,)
            before = all_cpu_s()
            begun = time.perf_counter()
            futures = [ex.submit(function, *arguments) for _ in range(TASKS)]
            for future in futures:
                future.result(300)
            wall = time.perf_counter() - begun
            after = all_cpu_s()
            told[f"{name}_per_s"] = TASKS / wall
            told[f"{name}_cpu_ms"] = {part: (after[part] - before[part]) * 1000 / TASKS for part in before}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
