"""Runs inside the namespace as root: a manager at a terminal and without one, stopped in every way, and restarted.

Input: {}. Output: how each run ended, what the terminal showed, and what was left running.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from manager_stage import BIN, SITE, admin, agents, configure, credentials, free_port, wait_for

COMMAND = str(BIN / "muster-endpoint")


def begun() -> int:
    """How often an agent began, as the log says."""
    log = SITE / "endpoint.log"
    return log.read_text().count("Endpoint Manager begins") if log.exists() else 0


def at_terminal(words: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, text: str) -> str:
    said, ends = "", time.monotonic() + 30
    while text not in said and time.monotonic() < ends:
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 65536).decode(errors="replace")
    return said


def run_once(number: int, environment: dict[str, str], *, terminal: bool) -> dict[str, Any]:
    before = begun()
    if terminal:
        process, screen = at_terminal(["start", SITE.name], environment)
        said = read_until(screen, "---->")
    else:
        process = subprocess.Popen([COMMAND, "start", SITE.name], env=environment, stdout=subprocess.PIPE)
    wait_for("the agent", lambda: begun() > before)
    process.send_signal(number)
    status = process.wait(30)
    if terminal:
        os.close(screen)
    else:
        assert process.stdout is not None
        said = process.stdout.read().decode()
    return {"status": status, "said": said, "left": agents()}


def restart(environment: dict[str, str]) -> dict[str, Any]:
    before = begun()
    first = subprocess.Popen([COMMAND, "start", SITE.name], env=environment, stdout=subprocess.DEVNULL)
    wait_for("the agent", lambda: begun() > before)
    again = subprocess.Popen([COMMAND, "restart", SITE.name], env=environment, stdout=subprocess.PIPE)
    ended = first.wait(30)
    wait_for("the second agent", lambda: begun() > before + 1)
    second = subprocess.run([COMMAND, "start", SITE.name], env=environment, capture_output=True, text=True, check=False)
    again.terminate()
    return {"first": ended, "second": again.wait(30), "third": second.stderr + second.stdout, "left": agents()}


def interrupted_login(environment: dict[str, str]) -> dict[str, Any]:
    """Ctrl+C while the registrar asks for a login."""
    nobody = {name: value for name, value in environment.items() if not name.startswith("MUSTER_CLIENT")}
    for file in (SITE / "agent").glob("tokens*"):
        file.unlink()
    process, screen = at_terminal(["start", SITE.name], nobody)
    said = read_until(screen, "http")
    process.send_signal(signal.SIGINT)
    status = process.wait(30)
    os.close(screen)
    return {"status": status, "asked": "http" in said, "left": registrars()}


def registrars() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"muster.manager.registrar" in (entry / "cmdline").read_bytes():
                environment = os.readlink(entry / "cwd")
                found += [entry.name] if environment.startswith(str(SITE.parent)) else []
        except OSError:
            continue
    return found


def main() -> None:
    json.load(sys.stdin)
    os.umask(0o022)
    for place in ("/srv/data", "/srv/root"):
        Path(place).mkdir(mode=0o700)
    port, amqp_port = free_port(), free_port()
    listen = ["--listen", f"127.0.0.1:{port}", "--amqp-listen", f"127.0.0.1:{amqp_port}", "--data", "/srv/data"]
    with open("/srv/service.log", "wb") as log:
        serving = subprocess.Popen([str(BIN / "muster"), "serve", *listen], stdout=log, stderr=log)
    wait_for("the service", lambda: "ready" in Path("/srv/service.log").read_text())
    owner = credentials(admin("client", "add", "site"))
    configure()
    service = {"MUSTER_HOME": str(SITE.parent), "MUSTER_SERVICE_URL": f"http://127.0.0.1:{port}"}
    environment = {**os.environ, **service, **owner}
    out: dict[str, Any] = {
        number.name: run_once(number, environment, terminal=number is signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    }
    out["restart"] = restart(environment)
    out["login"] = interrupted_login(environment)
    serving.terminate()
    serving.wait(30)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
