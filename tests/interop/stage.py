"""The stage for interop: one service on localhost:5000 in a network namespace, official packages beside ours."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import BIN, Processes
from muster.testing.site import MAPPING, Site

NEWEST, OLDER = "4.19.0", "4.15.0"
CASES = Path(__file__).with_name("cases.py")
TEMPLATE = """\
endpoint_setup: {{ endpoint_setup|default() }}
heartbeat_period: 5
engine:
  type: ThreadPoolEngine
  max_workers: {{ max_workers|default(2) }}
{% if worker_init is defined %}
display_name: {{ worker_init }}
{% endif %}
idle_heartbeats_soft: 100
idle_heartbeats_hard: 200
"""
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"max_workers": {"type": "integer"}, "worker_init": {"type": "string"}},
    "additionalProperties": True,
}


def absent(why: str) -> None:
    """A part that is not there: skip on a laptop, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def official() -> dict[str, Path]:
    """Directories of programs of the official packages, unmodified, from PyPI; made once and kept beside ours."""
    return {version: _environment(version) / "bin" for version in (NEWEST, OLDER)}


def _environment(version: str) -> Path:
    home = Path(sys.prefix).with_name(f"{Path(sys.prefix).name}-official-{version}")
    wanted = [f"globus-compute-sdk=={version}", f"globus-compute-endpoint=={version}"]
    stamp = home / "made"
    mark = hashlib.sha256(repr(wanted).encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == mark):
        base = os.path.realpath(sys.executable)
        subprocess.run([base, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "pip"), "--disable-pip-version-check", "-q", "install"]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            absent(f"the official packages cannot be installed: {done.stderr[-500:]}")
        stamp.write_text(mark)
    return home


@dataclass
class Both(Site):
    """A site where official programs run beside ours, redirected as `muster env` says."""

    redirect: dict[str, str] | None = None

    def official_environment(self, person: str, programs: Path) -> dict[str, str]:
        if self.redirect is None:
            self.redirect = {}
            env = self.processes.run([str(BIN / "muster"), "env", "--data", str(self.data)], account=self.operator)
            for line in env.splitlines():
                if line.startswith("export "):
                    name, _, value = line.removeprefix("export ").partition("=")
                    self.redirect[name] = "".join(shlex.split(value))
        ours = self.person(person)
        return {
            **self.redirect,
            **ours,
            "GLOBUS_COMPUTE_CLIENT_ID": ours["MUSTER_CLIENT_ID"],
            "GLOBUS_COMPUTE_CLIENT_SECRET": ours["MUSTER_CLIENT_SECRET"],
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        }

    def official_endpoint(self, name: str, programs: Path, account: str | None) -> str:
        """Configure and start an official endpoint: as root it maps identities, as a person it serves that person."""
        person = account or "mickey97"
        home = self.directory / f"official-{name}"
        home.mkdir()
        self._give(home, account)
        env = self.official_environment(person, programs) | {"GLOBUS_COMPUTE_USER_DIR": str(home)}
        command = str(programs / "globus-compute-endpoint")
        options = ["--multi-user", "true"] if account is None else []
        if account is None and "--contact-email" in self.processes.run([command, "configure", "--help"], env):
            options += ["--contact-email", "mickey97@example.org"]
        self.processes.run([command, "configure", name, *options], env, account=account)
        directory = home / name
        self.write(directory / "user_config_template.yaml.j2", TEMPLATE, account)
        self.write(directory / "user_config_schema.json", json.dumps(SCHEMA), account)
        # A privileged manager of theirs starts children with a PATH of its own making.
        self.write(directory / "user_environment.yaml", yaml.safe_dump({"PATH": env["PATH"]}), account)
        if account is None:
            next(directory.glob("*identity_mapping*.json")).write_text(json.dumps(MAPPING))
        self.processes.start(f"official {name}", [command, "start", name], env, account=account)
        # It says nothing to what is no terminal; its log does.
        log, deadline = directory / "endpoint.log", time.monotonic() + 60
        while not (log.exists() and "Awaiting messages" in log.read_text()):
            assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
            time.sleep(0.1)
        return str(json.loads((directory / "endpoint.json").read_text())["endpoint_id"])

    def cases(
        self, person: str, programs: Path, package: str, endpoint: str, config: dict[str, object], cases: list[str]
    ) -> dict[str, dict[str, object]]:
        """Run these cases with this SDK as this person; what each told."""
        env = self.official_environment(person, programs)
        command = [str(programs / "python"), str(CASES), package, endpoint, json.dumps(config), *cases]
        out = self.processes.run(command, env, account=person, patience_s=400)
        told = {line["case"]: line for line in map(json.loads, out.splitlines())}
        assert list(told) == cases
        return told


@pytest.fixture(scope="session")
def site() -> Iterator[Both]:
    """The service is up on localhost:5000; harper, alice and mickey97 (who owns the endpoints) have credentials."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-interop-")))
        directory.chmod(0o755)
        try:
            space = stack.enter_context(Namespace(directory))
        except NamespaceRefusedError as why:
            absent(f"interop needs localhost:5000 and other accounts: {why}")
            raise
        site = Both(directory, stack.enter_context(Processes(space)), "127.0.0.1:5000", "127.0.0.1:5672")
        site.serve()
        yield site
