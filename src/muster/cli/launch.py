"""`start`: the last steps of the command before it turns into the monitor.

As root nothing here reads YAML or JSON from outside, or opens a connection: that is for the programs it hands over to.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click

import muster_root
from muster.cli.agent import PASSED, agent_directory
from muster.cli.local import LocalEndpoint
from muster.cli.mapping import check_mapping
from muster.cli.strangers import expect_none
from muster.errors import ConfigInvalid, EndpointNotStarted
from muster_root.site import Site, Unusable, open_trusted

_LIMIT_BYTES = 64 * 1024
_SECRET = ("MUSTER_CLIENT_ID", "MUSTER_CLIENT_SECRET")
_KEPT_AS_ROOT = ("LANG", "TERM", "TZ")


def become_monitor(
    endpoint: LocalEndpoint, *, console: bool, debug: bool, endpoint_id: str, ready: int = -1
) -> NoReturn:
    """Never returns: this process is the monitor from now on, and holds the lock."""
    try:
        _become_monitor(endpoint, console=console, debug=debug, endpoint_id=endpoint_id, ready=ready)
    except Unusable as why:
        raise ConfigInvalid.told(str(why)) from None
    except FileNotFoundError as why:
        raise ConfigInvalid(file=why.filename or endpoint.directory, why="there is no such file") from None


def _become_monitor(endpoint: LocalEndpoint, *, console: bool, debug: bool, endpoint_id: str, ready: int) -> NoReturn:
    directory = endpoint.directory.resolve()
    Site(str(directory))  # first: nothing is made or opened in a place that others could change
    endpoint.lock()
    agent_dir = agent_directory(directory)
    if os.geteuid() == 0:
        expect_none(os.fstat(agent_dir).st_uid)
        _warn_of_changeable_code()
    log = os.open(directory / "endpoint.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    environment = _environment(debug=debug)
    register(directory, [agent_dir, environment], endpoint_id)
    clock = not console and os.isatty(1)
    if ready >= 0:
        _give_back_the_terminal(ready)
    for file in (agent_dir, log, environment):
        os.set_inheritable(file, True)
    facts = [directory, int(console), int(clock), log, agent_dir, environment]
    program = Path(muster_root.__path__[0], "__main__.py")
    command = [sys.executable, "-I", "-S", *map(str, [program, *facts])]
    kept = _KEPT_AS_ROOT if os.geteuid() == 0 else [name for name in os.environ if name not in _SECRET]
    os.execve(sys.executable, command, {name: os.environ[name] for name in kept if name in os.environ})  # noqa: S606


def _give_back_the_terminal(ready: int) -> None:
    """Whoever waits at the other end of `ready` learns that all is up."""
    os.write(ready, b"+")
    os.close(ready)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _warn_of_changeable_code() -> None:
    for file in (sys.executable, muster_root.__path__[0] + "/__main__.py"):
        try:
            open_trusted(os.path.realpath(file), 0).close()
        except Unusable as why:
            click.echo(f"Warning: Muster runs as root, but {why}", err=True)


def register(directory: Path, lent: list[int], wanted_id: str) -> None:
    """Have the registrar log in and register; what it brings is all that root knows of a service."""
    site = Site(str(directory))
    if site.privileged:
        check_mapping(site)
    record = _record(site)
    facts = {
        "endpoint_id": wanted_id or record.get("endpoint_id", ""),
        "owners": record.get("owners", ""),
        "need_key": "seal_key" not in record or wanted_id not in ("", record.get("endpoint_id")),
    }
    process, link = site.employ("registrar", facts, lent, (0, 1, 2))
    try:
        with process.ear as ear:
            told = (ear.readall() or b"").decode(errors="replace").lstrip("+")
        status = process.opened.wait()
    except (
        BaseException
    ):  # Ctrl+C reaches us alone: the registrar has left the terminal's session, and still reads from it
        process.send(signal.SIGKILL)
        raise
    if told:
        raise EndpointNotStarted(why=told.partition(": ")[2])
    if status > 0:
        sys.exit(status)  # it has said why
    if status < 0:
        raise EndpointNotStarted(why=f"the part that registers it was ended by {signal_name(-status)}")
    with link:
        answer = re.fullmatch(rb"([0-9a-f-]{36}) ([0-9a-f]{64})?((?: [0-9a-f-]{36})+)", link.recv(_LIMIT_BYTES))
    if answer is None:
        raise EndpointNotStarted(why="the registrar brought no usable answer")
    id_, key, owners = ((part or b"").decode() for part in answer.groups())
    _keep(directory, {**record, "endpoint_id": id_, "owners": owners, **({"seal_key": key} if key else {})})


def _record(site: Site) -> dict[str, str]:
    try:
        return site.record()
    except FileNotFoundError:
        return {}


def _keep(directory: Path, record: dict[str, str]) -> None:
    """Root's own file: no one else ever reads the key."""
    fresh = directory / "root.json.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / "root.json")


def detach(endpoint: LocalEndpoint, arguments: list[str]) -> None:
    """Start it in a session of its own; return when all is up, end as it ended when that was before."""
    hear, tell = os.pipe()
    # -P: root must not import what lies in the directory it happens to stand in.
    program = [sys.executable, "-P", "-m", "muster.cli.endpoint"]
    command = [*program, "start", endpoint.name, *arguments, "--ready-fd", str(tell)]
    process = subprocess.Popen(command, pass_fds=[tell], start_new_session=True)
    os.close(tell)
    with os.fdopen(hear, "rb") as ear:
        if ear.read(1):
            click.echo(f"Endpoint <{endpoint.name}> is running (process {endpoint.holder()}).")
            click.echo(f"    Log: {endpoint.directory}/endpoint.log")
            click.echo(f"    Stop it with: muster-endpoint stop {endpoint.name}")
        else:
            status = process.wait()
            if status > 0:
                sys.exit(status)  # it has said why, on this terminal
            why = signal_name(-status) if status else "nobody knows whom"
            raise EndpointNotStarted(why=f"it was ended by {why}; {endpoint.directory}/endpoint.log may say more")


def signal_name(number: int) -> str:
    """Real-time signals have none: only their ends are known to Python."""
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _environment(*, debug: bool) -> int:
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    if debug:
        passed["MUSTER_DEBUG"] = "1"
    fd = os.memfd_create("environment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, "\0".join(f"{name}={value}" for name, value in passed.items()).encode())
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    fcntl.fcntl(
        fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL
    )  # every agent gets the same, whatever the last one did
    return fd
