"""`muster-endpoint` as root reaches the network only in a process of the agent's account."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.testing.namespace import AGENT_UID, Namespace, NamespaceRefusedError
from muster.testing.processes import BIN, clean_environment

ENDPOINT = "6d0ba55f-de15-4af2-827d-05c50c338aa7"
MUSTER = str(BIN / "muster-endpoint")
CREDENTIALS = {"MUSTER_CLIENT_ID": ENDPOINT, "MUSTER_CLIENT_SECRET": "ms_secret"}


class Stage:
    """A manager of root's that was registered once, and a service that only looks who calls."""

    def __init__(self, space: Namespace, directory: Path) -> None:
        self._space = space
        self.home = directory / "home" / "root"
        self._service = socket.create_server(("127.0.0.1", 0))
        self._service.settimeout(20)
        url = f"http://127.0.0.1:{self._service.getsockname()[1]}"
        self._env = clean_environment() | {"MUSTER_HOME": str(self.home), "MUSTER_SERVICE_URL": url, "SECRET": "root's"}

    def run(self, *words: str, **env: str) -> subprocess.Popen[str]:
        command = self._space.command([MUSTER, *words])
        return subprocess.Popen(
            command,
            env=self._env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def caller(self) -> int:
        """The uid that owns the socket of the next connection, as the kernel has it."""
        connection, (_, port) = self._service.accept()
        with connection:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return next(int(row[7]) for row in rows if row[1].endswith(f":{port:04X}"))

    def close(self) -> None:
        self._service.close()


@pytest.fixture(scope="module")
def space() -> Iterator[tuple[Namespace, Path]]:
    with tempfile.TemporaryDirectory(prefix="muster-errands-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        try:
            with Namespace(directory, network=False) as space:
                yield space, directory
        except NamespaceRefusedError as why:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(why))


@pytest.fixture
def stage(space: tuple[Namespace, Path], tmp_path: Path) -> Iterator[Stage]:
    made = Stage(space[0], space[1] / tmp_path.name)
    made.run("configure", "prod", "--multi-user").communicate(timeout=20)
    (made.home / "prod" / "root.json").write_text(json.dumps({"endpoint_id": ENDPOINT}))
    yield made
    made.close()


@pytest.mark.parametrize("words", [["whoami"], ["whoami", "prod"], ["delete", "prod", "--yes"]], ids=" ".join)
def test_the_connection_belongs_to_the_agents_account(stage: Stage, words: list[str]) -> None:
    command = stage.run(*words, **CREDENTIALS)
    assert stage.caller() == AGENT_UID
    command.kill()
    command.communicate()


def test_a_login_belongs_to_the_agents_account(stage: Stage) -> None:
    command = stage.run("login", "--device", "prod")
    assert stage.caller() == AGENT_UID
    command.kill()
    command.communicate()


def test_the_advice_names_the_right_command(stage: Stage) -> None:
    said = stage.run("whoami").communicate(timeout=20)[0]
    assert "muster-endpoint login" in said


def test_with_several_managers_root_must_say_which(stage: Stage) -> None:
    stage.run("configure", "second", "--multi-user").communicate(timeout=20)
    command = stage.run("whoami")
    assert "prod, second" in command.communicate(timeout=20)[0]
    assert command.returncode == 65


def test_a_login_is_kept_where_only_the_agent_can_read_it(stage: Stage) -> None:
    stage.run("logout").communicate(timeout=20)
    place = (stage.home / "prod" / "agent").stat()
    assert (place.st_uid, place.st_mode & 0o777) == (AGENT_UID, 0o700)
    assert not (stage.home / "tokens.json").exists()
