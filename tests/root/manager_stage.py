"""Runs inside the namespace as root: a service, a manager started by its command, and two people's Executors.

Input: {}. Output: what each person's functions saw, the manager's log, and how everything ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
DEADLINE_S = 60
SITE = Path("/srv/root/debug_queue")
CLIENT = """
import json, os, sys
from muster import Executor
def who():
    import os
    return os.getuid(), os.getgid(), sorted(os.getgroups())
with Executor(endpoint_id=sys.argv[1]) as executor:
    try:
        print(json.dumps(executor.submit(who).result(timeout=50)))
    except Exception as why:
        print(json.dumps({"error": str(why)}))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Any) -> Any:
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        if found := ready():
            return found
        time.sleep(0.05)
    raise TimeoutError(what)


def admin(*words: str, stdin: str = "") -> str:
    call = [str(BIN / "muster"), "admin", *words, "--data", "/srv/data"]
    return subprocess.run(call, input=stdin, capture_output=True, text=True, check=True).stdout


def credentials(text: str) -> dict[str, str]:
    return dict(re.findall(r"(MUSTER_CLIENT_\w+)=(\S+)", text))


def ask(service: str, endpoint: str, who: dict[str, str]) -> Any:
    environment = {**os.environ, "MUSTER_SERVICE_URL": service, "MUSTER_HOME": "/srv/laptop", **who}
    call = [sys.executable, "-c", CLIENT, endpoint]
    return json.loads(subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout)


def agents() -> list[int]:
    """Processes of an agent in our site's directory; other managers of this machine are none of our business."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and os.readlink(entry / "cwd") == str(SITE / "agent")
            if ours and b"muster.manager.agent" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def shown(secrets: list[str]) -> list[str]:
    """Where one of these stands that others could read it: arguments, environments, the log. Ours are not looked at."""
    found = []
    for entry in Path("/proc").iterdir():
        for name in ("cmdline", "environ") if entry.name.isdigit() and int(entry.name) != os.getpid() else ():
            try:
                text = (entry / name).read_bytes()
            except OSError:
                continue
            of_us = any(
                word in text for word in (b"muster_root", b"muster.manager", b"muster.endpoint", b"muster.worker")
            )
            if (of_us or entry.stat().st_uid in (990, 2001, 2002)) and any(
                secret.encode() in text for secret in secrets
            ):
                found.append(f"{name} of {(entry / 'cmdline').read_text()[:200]}")
    log = (SITE / "endpoint.log").read_text()
    return [*found, *(f"log: {secret}" for secret in secrets if secret in log)]


def configure() -> None:
    home = {**os.environ, "MUSTER_HOME": str(SITE.parent)}
    subprocess.run([str(BIN / "muster-endpoint"), "configure", SITE.name], env=home, check=True, capture_output=True)
    (SITE / "user_config_template.yaml").write_text("engine:\n  type: ProcessPoolEngine\n  max_workers: 1\n")


def main() -> None:
    json.load(sys.stdin)
    os.umask(0o022)
    for place in ("/srv/data", "/srv/root"):
        Path(place).mkdir(mode=0o700)
    port, amqp_port = free_port(), free_port()
    service = f"http://127.0.0.1:{port}"
    listen = ["--listen", f"127.0.0.1:{port}", "--amqp-listen", f"127.0.0.1:{amqp_port}", "--data", "/srv/data"]
    out: dict[str, Any] = {}
    with open("/srv/service.log", "wb") as log:
        serving = subprocess.Popen([str(BIN / "muster"), "serve", *listen], stdout=log, stderr=log)
    wait_for("the service", lambda: "ready" in Path("/srv/service.log").read_text())
    people = {}
    for name in ("harper", "alice", "eve"):
        domain = "example.org" if name == "eve" else "example.com"
        admin("identity", "add", f"{name}@{domain}", "--password-stdin", stdin=f"a long password of {name}\n")
        people[name] = credentials(admin("client", "add", f"{name}-laptop", "--identity", f"{name}@{domain}"))
    owner = credentials(admin("client", "add", "site"))
    configure()
    environment = {**os.environ, "MUSTER_HOME": str(SITE.parent), "MUSTER_SERVICE_URL": service, **owner}
    start = [str(BIN / "muster-endpoint"), "start", SITE.name]
    manager = subprocess.Popen(start, env=environment, stdout=subprocess.PIPE, text=True)
    assert manager.stdout is not None
    out["banner"] = manager.stdout.readline()
    endpoint = re.findall(r"[0-9a-f-]{36}", out["banner"])[0]
    wait_for("the agent", lambda: "Endpoint Manager begins" in (SITE / "endpoint.log").read_text())
    out["secrets_shown"] = owner["MUSTER_CLIENT_SECRET"] in Path(f"/proc/{manager.pid}/environ").read_text()
    out["seen"] = {name: ask(service, endpoint, who) for name, who in people.items()}
    out["shown"] = shown([owner["MUSTER_CLIENT_SECRET"], "amqp://"])
    (first,) = agents()
    os.kill(first, signal.SIGKILL)
    wait_for("another agent", lambda: [pid for pid in agents() if pid != first])
    out["after_the_agent_died"] = ask(service, endpoint, people["harper"])
    home = {**os.environ, "MUSTER_HOME": str(SITE.parent)}
    out["stopped"] = subprocess.run(
        [str(BIN / "muster-endpoint"), "stop", SITE.name], env=home, capture_output=True, text=True, check=False
    ).stdout
    out["status"] = manager.wait(30)
    out["log"] = (SITE / "endpoint.log").read_text()
    serving.terminate()
    serving.wait(30)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
