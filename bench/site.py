"""The machine under `make bench`: one service, one manager of ours, one of theirs, real accounts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psutil

from interop import stage
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
COMMON = "heartbeat_period: {heartbeat_s}\nidle_heartbeats_soft: 100\nidle_heartbeats_hard: 200\n"
CLIENT = Path(__file__).with_name("client.py")


class Bench:
    """One service, one manager of ours, one of theirs."""

    def __init__(self, directory: Path, processes: Processes, heartbeat_s: int = 5) -> None:
        self.template = template(heartbeat_s)
        self.site = stage.Both(directory, processes, "127.0.0.1:5000", "127.0.0.1:5672")
        self.service = self.site.serve()
        self.programs = {"muster": BIN}
        self.endpoints: dict[str, tuple[str, Running]] = {}

    def start(self, peer: str) -> None:
        if peer == "muster":
            own = self.site.configure("bench", "mickey97", "--multi-user")
            self.site.write(own / "user_config_template.yaml", self.template)
            self.site.write(own / "example_identity_mapping_config.json", json.dumps(MAPPING))
            manager = self.site.start(own, "mickey97")
            self.endpoints[peer] = (manager.id, manager.process)
        else:
            self.programs[peer] = stage._environment(stage.NEWEST) / "bin"
            stage.TEMPLATE, stage.SCHEMA = self.template, {"type": "object"}
            endpoint_id = self.site.official_endpoint("bench", self.programs[peer], None)
            self.endpoints[peer] = (endpoint_id, self.site.processes.running[-1])

    def one(self, sdk: str, endpoint: str, engine: str, tasks: int, tag: str = "") -> dict:
        """A new user endpoint each time (the tag makes it another one), so that its cold start is real."""
        package = "muster" if sdk == "muster" else "globus_compute_sdk"
        config = json.dumps({"kind": engine, "tag": tag})
        arguments = [package, self.endpoints[endpoint][0], config, str(tasks), *self.parts(endpoint)]
        return json.loads(self.client(sdk, CLIENT, *arguments))

    def parts(self, endpoint: str) -> list[str]:
        """Whose CPU time counts for what, as `client.py` reads it."""
        assert self.site.processes.space is not None
        account = f"uid:{self.site.processes.space.people['harper'].uid}"
        pid = self.endpoints[endpoint][1].process.pid
        return [f"service={self.service.process.pid}", f"endpoint={pid},{account}"]

    def client(self, sdk: str, script: Path, *arguments: str) -> str:
        """Harper's laptop. It is another account's, so that CPU time can be told apart by account."""
        env = self.site.official_environment("harper", self.programs[sdk])
        command = [str(self.programs[sdk] / "python"), str(script), *arguments]
        return self.site.processes.run(command, env, account="alice", patience_s=600)

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


def template(heartbeat_s: int) -> str:
    # Official templates see values in their JSON form, ours both ways.
    parts = [f"{{% if kind == '\"{kind}\"' %}}\n{text}{{% endif %}}\n" for kind, text in ENGINES.items()]
    return "".join(parts) + COMMON.format(heartbeat_s=heartbeat_s)


def pss_mb(processes: list[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 1e6
