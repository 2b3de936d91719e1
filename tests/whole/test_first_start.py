"""The first `start` without credentials begins with a login, as the guide shows it: at a terminal, and only there."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import BIN, Processes, clean_environment
from muster.testing.site import Site

PROMPT = "Enter the resulting Authorization Code here: "


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-first-")))
        directory.chmod(0o755)
        space = None
        if os.geteuid() == 0:
            try:
                space = stack.enter_context(Namespace(directory, network=False))
            except NamespaceRefusedError as why:
                pytest.skip(str(why))
        made = Site(directory, stack.enter_context(Processes(space)))
        made.serve()
        yield made


def start(site: Site, directory: Path) -> tuple[list[str], dict[str, str]]:
    command = [str(BIN / "muster-endpoint"), "start", directory.name]
    environment = {"MUSTER_HOME": str(directory.parent), "MUSTER_SERVICE_URL": site.url}
    space = site.processes.space
    return space.command(command) if space else command, clean_environment() | environment


def said_at_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What stands there when it waits for somebody to type."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, deadline = "", time.monotonic() + 30
    while PROMPT not in said and time.monotonic() < deadline:
        if select.select([ours], [], [], 1)[0]:
            said += os.read(ours, 65536).decode()
    os.write(ours, b"\n")
    status = process.wait(30)
    os.close(ours)
    assert status == 77
    return said


@pytest.mark.parametrize("multi_user", ["true", "false"])
def test_at_a_terminal_it_asks_for_a_login(site: Site, multi_user: str) -> None:
    directory = site.configure(f"asks-{multi_user}", "mickey97", "--multi-user", multi_user)
    lines = said_at_a_terminal(*start(site, directory)).splitlines()
    at = lines.index("Please authenticate with Muster here:")
    assert lines[at + 1] == lines[at + 3] == "-" * 36
    assert lines[at + 2].startswith(f"{site.url}/v2/oauth2/authorize?client_id=")
    assert lines[at + 4 :] == ["", PROMPT]
    if multi_user == "true":
        assert lines[:at] == ["> Endpoint Manager initialization"]


@pytest.mark.parametrize("multi_user", ["true", "false"])
def test_elsewhere_it_says_what_to_run(site: Site, multi_user: str) -> None:
    directory = site.configure(f"says-{multi_user}", "mickey97", "--multi-user", multi_user)
    command, environment = start(site, directory)
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 77
    assert "muster-endpoint login" in done.stderr
