"""`make bench`: our SDK and endpoint beside the official ones, on the same service, in one run.

As root, in network and mount namespaces of its own, with real accounts. Prints tables and, with `--json`, the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import growth
from bench.site import ENGINES, Bench
from rich.console import Console
from rich.table import Table

from muster.testing.namespace import Namespace
from muster.testing.processes import BIN, Processes


def imports_ms() -> dict[str, float]:
    """Medians of 9, the whole process."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import muster": [sys.executable, "-c", "import muster"],
        "from muster import Executor": [sys.executable, "-c", "from muster import Executor"],
        "muster --help": [str(BIN / "muster"), "--help"],
    }
    told = {}
    for name, command in commands.items():
        times = []
        for _ in range(9):
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times.append((time.perf_counter() - begun) * 1000)
        told[name] = statistics.median(times)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--peers", nargs="+", default=["muster", "official"], choices=["muster", "official"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--growth", action=argparse.BooleanOptionalAction, default=True, help="as it grows, too: four minutes more"
    )
    arguments = parser.parse_args()
    results: dict[str, dict] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-bench-")))
        directory.chmod(0o755)
        space = stack.enter_context(Namespace(directory))
        bench = Bench(directory, stack.enter_context(Processes(space)))
        for peer in arguments.peers:
            bench.start(peer)
        for engine in arguments.engines:
            for peer in arguments.peers:
                results[f"{peer} {engine}"] = bench.one(peer, peer, engine, arguments.tasks)
        if len(arguments.peers) == 2:
            results["official SDK, our process"] = bench.one("official", "muster", "process", arguments.tasks, "mixed")
            results["our SDK, official thread"] = bench.one("muster", "official", "thread", arguments.tasks, "mixed")
        memory = bench.memory() if "muster" in arguments.peers else {}
    show(results)
    print("idle PSS, MB:", ", ".join(f"{name} {value:.1f}" for name, value in memory.items()))
    print("start of the whole process, ms:", ", ".join(f"{name} {value:.0f}" for name, value in imports_ms().items()))
    if arguments.growth:
        results |= growth.run()
    if arguments.json:
        print(json.dumps(results, indent=1))


def show(results: dict[str, dict]) -> None:
    table = Table(title="one run, one service; CPU-ms a task by process")
    for column in ("who, engine", "cold s", "p50 ms", "p99 ms", "no-op/s", "CPU ms", "1 kB/s", "CPU ms "):
        table.add_column(column, justify="right")
    for name, told in results.items():
        cpu = []
        for figure in ("noop_cpu_ms", "kilobyte_cpu_ms"):
            parts = told[figure]
            cpu.append(
                f"{sum(parts.values()):.3f}: " + " ".join(f"{part} {value:.3f}" for part, value in parts.items())
            )
        figures = (
            f"{told['cold_s']:.2f}",
            f"{told['p50_ms']:.1f}",
            f"{told['p99_ms']:.1f}",
            f"{told['noop_per_s']:.0f}",
        )
        table.add_row(name, *figures, cpu[0], f"{told['kilobyte_per_s']:.0f}", cpu[1])
    Console(width=200).print(table)
    for engine in ENGINES:
        ours, theirs = results.get(f"muster {engine}"), results.get(f"official {engine}")
        if ours and theirs:
            ratios = [ours["noop_per_s"] / theirs["noop_per_s"]]
            ratios += [theirs[figure] / ours[figure] for figure in ("p50_ms", "cold_s")]
            print(
                "{}: {:.1f} times the tasks a second, round trip 1/{:.0f}, cold start 1/{:.1f}".format(engine, *ratios)
            )


if __name__ == "__main__":
    main()
