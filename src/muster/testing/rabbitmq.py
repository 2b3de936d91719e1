"""A private RabbitMQ node for tests: own directory, ports, cookie and epmd; nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

_START_S = 90.0
_STOP_S = 30.0


def find_rabbitmq() -> Path | None:
    """The server's own script: the wrapper in /usr/sbin refuses other accounts than its own."""
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if found:
        return found[-1]
    on_path = shutil.which("rabbitmq-server")
    return Path(on_path) if on_path else None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RabbitMQ:
    """One node with one account, `muster`, that may do everything."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._password = secrets.token_hex(12)
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://muster:{self._password}@127.0.0.1:{self._port}/%2F"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def start(self) -> None:
        """Return when it speaks AMQP; a node that fails to boot exits with 0, so only that counts."""
        program = find_rabbitmq()
        if program is None:
            raise FileNotFoundError("no rabbitmq-server on this machine")
        environment = self._prepare()
        log = (self._directory / "console.log").open("ab")
        with log:
            # In the foreground and ours: the one that Erlang starts by itself would outlive the node.
            self._epmd = subprocess.Popen(
                ["epmd", "-address", "127.0.0.1", "-port", environment["ERL_EPMD_PORT"]], stdout=log, stderr=log
            )
            self._node = subprocess.Popen(
                [program],
                env=environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait(self._node)
        except BaseException:
            self.stop()
            raise

    def _prepare(self) -> dict[str, str]:
        base = self._directory
        for name in ("home", "mnesia", "log"):
            (base / name).mkdir(parents=True, exist_ok=True)
        cookie = base / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
        (base / "plugins").write_text("[].\n")
        (base / "env.conf").write_text("")
        (base / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            f"default_user = muster\ndefault_pass = {self._password}\nloopback_users = none\n"
            "log.console = true\nlog.file = false\ndisk_free_limit.absolute = 50MB\n"
            "vm_memory_high_watermark.absolute = 512MiB\nconsumer_timeout = 86400000\n"
        )
        return {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(base / "home"),
            "RABBITMQ_CONF_ENV_FILE": str(base / "env.conf"),
            "RABBITMQ_NODENAME": f"muster{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_PID_FILE": str(base / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "generated"),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_MAX_PORTS": "65536",
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            " +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _wait(self, node: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if node.poll() is not None:
                raise RuntimeError(f"RabbitMQ ended: {(self._directory / 'console.log').read_text()[-2000:]}")
            if self._speaks():
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(0.2)
        raise TimeoutError("RabbitMQ did not start")

    def _speaks(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address, 1) as probe:
            probe.settimeout(2)
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"
        return False

    def stop(self) -> None:
        """Node first, its epmd after it."""
        node, self._node = self._node, None
        if node is not None:
            _end(node, group=True)
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            _end(epmd, group=False)


def _end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if group:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what the script left behind
