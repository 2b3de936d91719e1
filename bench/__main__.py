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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psutil
from rich.console import Console
from rich.table import Table

from interop import stage
from muster.testing.namespace import Namespace
from muster.testing.processes import BIN, Processes, Running
from muster.testing.site import MAPPING

ENGINES = {
    "thread": "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n",
    "process": "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n",
    "parsl": (
        "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: 2\n"
        "  provider: {type: LocalProvider, init_blocks: 1, min_blocks: 1, max_blocks: 1}\n"
    ),
}
COMMON = "heartbeat_period: 5\nidle_heartbeats_soft: 100\nidle_heartbeats_hard: 200\n"
CLIENT = Path(__file__).with_name("client.py")


class Bench:
    """One service, one manager of ours, one of theirs."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.site = stage.Both(directory, processes, "127.0.0.1:5000", "127.0.0.1:5672")
        self.service = self.site.serve()
        self.programs = {"muster": BIN}
        self.endpoints: dict[str, tuple[str, Running]] = {}

    def start(self, peer: str) -> None:
        if peer == "muster":
            own = self.site.configure("bench", "mickey97", "--multi-user")
            self.site.write(own / "user_config_template.yaml", template())
            self.site.write(own / "example_identity_mapping_config.json", json.dumps(MAPPING))
            manager = self.site.start(own, "mickey97")
            self.endpoints[peer] = (manager.id, manager.process)
        else:
            self.programs[peer] = stage._environment(stage.NEWEST) / "bin"
            stage.TEMPLATE, stage.SCHEMA = template(), {"type": "object"}
            endpoint_id = self.site.official_endpoint("bench", self.programs[peer], None)
            self.endpoints[peer] = (endpoint_id, self.site.processes.running[-1])

    def one(self, sdk: str, endpoint: str, engine: str, tasks: int, tag: str = "") -> dict:
        """A new user endpoint each time (the tag makes it another one), so that its cold start is real."""
        package = "muster" if sdk == "muster" else "globus_compute_sdk"
        endpoint_id, process = self.endpoints[endpoint]
        assert self.site.processes.space is not None
        account = f"uid:{self.site.processes.space.people['harper'].uid}"
        parts = [f"service={self.service.process.pid}", f"endpoint={process.process.pid},{account}"]
        config = json.dumps({"kind": engine, "tag": tag})
        command = [str(self.programs[sdk] / "python"), str(CLIENT), package, endpoint_id, config, str(tasks), *parts]
        env = self.site.official_environment("harper", self.programs[sdk])
        # The laptop is another account's, so that CPU time can be told apart by account.
        return json.loads(self.site.processes.run(command, env, account="alice", patience_s=600))

    def memory(self) -> dict[str, float]:
        """PSS in MB of what idles: monitor, agent, and the user endpoint with two worker processes."""
        _, process = self.endpoints["muster"]
        monitor = psutil.Process(process.process.pid)
        told = {"monitor": pss_mb([monitor])}
        for child in monitor.children():
            name = " ".join(child.cmdline())
            if "muster.manager" in name:
                told["agent"] = pss_mb([child])
            elif len(children := child.children(recursive=True)) == 2:
                told["user endpoint + 2 workers"] = pss_mb([child, *children])
        return told


def template() -> str:
    # Official templates see values in their JSON form, ours both ways.
    parts = [f"{{% if kind == '\"{kind}\"' %}}\n{text}{{% endif %}}\n" for kind, text in ENGINES.items()]
    return "".join(parts) + COMMON


def pss_mb(processes: list[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 1e6


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
