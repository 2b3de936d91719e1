"""`make bench`: our SDK and endpoint beside the official ones, on the same service, in one run.

As root, in network and mount namespaces of its own, with real accounts. Prints a table and, with `--json`, the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rich.console import Console
from rich.table import Table

from interop.stage import NEWEST, Both, _environment
from muster.testing.namespace import Namespace
from muster.testing.processes import BIN, Processes
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


def template() -> str:
    parts = ["{% if kind == '\"" + kind + "\"' or kind == '" + kind + "' %}\n" + text for kind, text in ENGINES.items()]
    return "\n".join([p + "{% endif %}" for p in parts]) + "\n" + COMMON


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--peers", nargs="+", default=["muster", "official"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-bench-")))
        directory.chmod(0o755)
        space = stack.enter_context(Namespace(directory))
        site = Both(directory, stack.enter_context(Processes(space)), "127.0.0.1:5000", "127.0.0.1:5672")
        service = site.serve()
        programs = {"muster": BIN}
        ids = {}
        if "muster" in arguments.peers:
            own = site.configure("bench", "mickey97", "--multi-user")
            site.write(own / "user_config_template.yaml", template())
            site.write(own / "example_identity_mapping_config.json", json.dumps(MAPPING))
            ids["muster"] = site.start(own, "mickey97")
        if "official" in arguments.peers:
            programs["official"] = _environment(NEWEST) / "bin"
            import interop.stage

            interop.stage.TEMPLATE = template()
            interop.stage.SCHEMA = {"type": "object"}
            ids["official"] = site.official_endpoint("bench", programs["official"], None)
        for engine in arguments.engines:
            for peer in arguments.peers:
                results[f"{peer} {engine}"] = one(
                    site, service, programs[peer], peer, ids[peer], engine, arguments.tasks
                )
    show(results)
    if arguments.json:
        print(json.dumps(results, indent=1))


def one(site, service, programs, peer, endpoint, engine, tasks) -> dict:
    package = "muster" if peer == "muster" else "globus_compute_sdk"
    endpoint_id = endpoint.id if peer == "muster" else endpoint
    process = endpoint.process if peer == "muster" else site.processes.running[-1]
    parts = [f"service={service.process.pid}", f"endpoint={process.process.pid}"]
    config = json.dumps({"kind": engine})
    command = [str(programs / "python"), str(CLIENT), package, endpoint_id, config, str(tasks), *parts]
    env = site.official_environment("harper", programs)
    return json.loads(site.processes.run(command, env, account="harper", patience_s=600))


def show(results: dict) -> None:
    table = Table(title="one run, one service; CPU-ms a task by process")
    for column in ("who, engine", "cold s", "p50 ms", "p99 ms", "no-op/s", "CPU ms", "1 kB/s", "CPU ms "):
        table.add_column(column, justify="right")
    for name, told in results.items():
        cpu = [" ".join(f"{p}={v:.3f}" for p, v in told[k].items()) for k in ("noop_cpu_ms", "kilobyte_cpu_ms")]
        table.add_row(
            name,
            f"{told['cold_s']:.2f}",
            f"{told['p50_ms']:.1f}",
            f"{told['p99_ms']:.1f}",
            f"{told['noop_per_s']:.0f}",
            cpu[0],
            f"{told['kilobyte_per_s']:.0f}",
            cpu[1],
        )
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
