"""A PostgreSQL of one's own: a private directory, a free port, no fsync, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from muster.testing.processes import Running

NOBODY = 65534  # the server refuses to run as root
PLACES = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin"))


def server_programs() -> Path | None:
    """The directory that has `initdb` and `postgres`, if this machine has them."""
    on_path = shutil.which("initdb")
    places = (*PLACES, Path(on_path).parent) if on_path else PLACES
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class PrivatePostgres:
    """Started, stopped and started again at will; `url()` stays the same."""

    def __init__(self, *, fsync: bool = False) -> None:
        programs = server_programs()
        if programs is None:
            raise FileNotFoundError("no PostgreSQL server programs (initdb, postgres) on this machine")
        self._programs = programs
        self._fsync = "on" if fsync else "off"
        self._directory = Path(tempfile.mkdtemp(prefix="muster-postgres-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._running: Running | None = None

    def __enter__(self) -> Self:
        if os.getuid() == 0:
            os.chown(self._directory, NOBODY, NOBODY)
        initdb = [str(self._programs / "initdb"), "-D", str(self._directory / "data"), "-A", "trust", "-U", "muster"]
        subprocess.run([*initdb, "-N", "-E", "UTF8", "--locale=C"], check=True, capture_output=True, **self._as_whom())
        self.start()
        return self

    def __exit__(self, *why: object) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://muster@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Return when it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._directory),
            "fsync": self._fsync,
            "synchronous_commit": self._fsync,
            "full_page_writes": self._fsync,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        place = ["-D", str(self._directory / "data"), "-p", str(self._port)]
        command = [str(self._programs / "postgres"), *place, *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **self._as_whom()
        )
        self._running = Running("postgres", process)
        self._running.wait_for("ready to accept connections")

    def stop(self) -> None:
        """As an administrator would in a hurry: connections are cut, nothing committed is lost."""
        if self._running is not None:
            self._running.process.send_signal(signal.SIGINT)
            self._running.process.wait(30)
            self._running = None

    @staticmethod
    def _as_whom() -> dict[str, Any]:
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        return {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C"}, **drop}
