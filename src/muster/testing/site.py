"""A whole Muster on one machine: service, people with credentials, managers and single-user endpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muster.testing.processes import BIN, Processes, Running

MAPPING: Sequence[Mapping[str, object]] = (
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(harper|alice|mickey97)@example\\.org", "output": "{0}"}],
    },
)
TEMPLATE = """\
endpoint_setup: {{ endpoint_setup|default() }}
engine:
  type: ProcessPoolEngine
  max_workers: {{ workers|default(2) }}
idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760
"""


@dataclass(frozen=True, slots=True)
class Manager:
    """A running manager or single-user endpoint."""

    id: str
    directory: Path
    process: Running


@dataclass
class Site:
    """`directory` must be passable by every account (mode 0755) when the people are real accounts."""

    directory: Path
    processes: Processes
    listen: str = "127.0.0.1:0"
    amqp_listen: str = "127.0.0.1:0"
    url: str = ""
    ready: str = ""
    people: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def operator(self) -> str | None:
        """Who runs the service and its commands: an ordinary account where there are several."""
        return "mickey97" if self.processes.space else None

    @property
    def data(self) -> Path:
        return self.directory / "service"

    def serve(self, *options: str) -> Running:
        """Start the service, or start it again on the same ports and data."""
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            self._give(self.data, self.operator)
        command = [str(BIN / "muster"), "serve", "--listen", self.listen, "--amqp-listen", self.amqp_listen]
        command += ["--data", str(self.data), *options]
        service = self.processes.start("the service", command, account=self.operator)
        self.ready = service.wait_for("ready")
        self.url, amqp = self.ready.split()[1:3]
        self.listen, self.amqp_listen = (place.split("://")[1].rstrip("/") for place in (self.url, amqp))
        return service

    def person(self, name: str, *, linked_to: str | None = None) -> dict[str, str]:
        """The environment that makes a client act as NAME@example.org."""
        if name not in self.people:
            admin = [str(BIN / "muster"), "admin"]
            where = ["--data", str(self.data), "--json"]
            link = ["--link-to", f"{linked_to}@example.org"] if linked_to else []
            identity = [*admin, "identity", "add", f"{name}@example.org", *link, *where]
            self.processes.run(identity, account=self.operator)
            add = [*admin, "client", "add", f"{name}'s script", "--identity", f"{name}@example.org", *where]
            made = json.loads(self.processes.run(add, account=self.operator))
            self.people[name] = {
                "MUSTER_CLIENT_ID": made["client_id"],
                "MUSTER_CLIENT_SECRET": made["client_secret"],
            }
        return self.people[name] | {"MUSTER_SERVICE_URL": self.url}

    def configure(self, name: str, owner: str, *options: str, account: str | None = None) -> Path:
        """`muster-endpoint configure`, as root or as the account; the new directory."""
        home = self.directory / f"site-{owner}"
        if not home.exists():
            home.mkdir()
            self._give(home, account)
        environment = self.person(owner) | {"MUSTER_HOME": str(home)}
        self.processes.run([str(BIN / "muster-endpoint"), "configure", name, *options], environment, account=account)
        return home / name

    def manager(
        self, name: str, owner: str, *, template: str = TEMPLATE, config: str = "", account: str | None = None
    ) -> Manager:
        """Configure and start a manager: as root it maps identities, as an account it serves that account's owner."""
        directory = self.configure(name, owner, "--multi-user", account=account)
        mapping = directory / "example_identity_mapping_config.json"
        if mapping.exists():
            mapping.write_text(json.dumps(MAPPING))
        self.write(directory / "user_config_template.yaml", template, account)
        with (directory / "config.yaml").open("a") as file:
            file.write(config)
        return self.start(directory, owner, account=account)

    def single(self, name: str, owner: str, config: str, *, account: str | None = None) -> Manager:
        """Configure and start a single-user endpoint with this config.yaml."""
        directory = self.configure(name, owner, "--multi-user", "false", account=account)
        self.write(directory / "config.yaml", config, account)
        return self.start(directory, owner, account=account)

    def start(self, directory: Path, owner: str, *options: str, account: str | None = None) -> Manager:
        environment = self.person(owner) | {"MUSTER_HOME": str(directory.parent)}
        command = [str(BIN / "muster-endpoint"), "start", directory.name, *options]
        process = self.processes.start(f"endpoint {directory.name}", command, environment, account=account)
        line = process.wait_for("Endpoint ID:")
        return Manager(line.split("ID:")[1].replace("<", " ").split()[0].strip("[]"), directory, process)

    def write(self, file: Path, text: str, account: str | None = None) -> None:
        """Replace a file of an endpoint's directory, as its owner would."""
        file.write_text(text)
        self._give(file, account)

    def _give(self, path: Path, account: str | None) -> None:
        if account is not None and self.processes.space is not None:
            uid = self.processes.space.people[account].uid
            os.chown(path, uid, uid)
