"""The directory of one user endpoint: private, and used by one process at a time."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from muster.errors import StartFailed

_LOCK = "lock"
_LEAVING = b"leaving\n"
_LOOK_S = 0.1
_NOTICE_S = 2.0


def append(file: int, data: bytes) -> None:
    """Write all of it, or raise OSError (a part may be in the file then)."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class Place:
    """A directory that is ours alone. `take` locks it until `leave`, or until this process ends in whatever way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = -1

    def take(self, patience_s: float = 0) -> None:
        """Make it, check that nobody else can write there, and lock it; StartFailed says what is in the way. Whoever
        has it and is leaving gets so much time for that.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.directory.stat()
            if found.st_uid != os.geteuid():
                raise StartFailed(why=f"{self.directory} belongs to another account (uid {found.st_uid})")
            if stat.S_IMODE(found.st_mode) & 0o077:
                self.directory.chmod(0o700)
            self._lock = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as why:
            raise StartFailed(why=f"{self.directory} cannot be used ({why.strerror})") from None
        self._hold(patience_s)

    def leaving(self) -> None:
        """Tell whoever comes next that waiting is worth it."""
        with suppress(OSError):  # a full disk: then it waits for less long
            os.pwrite(self._lock, _LEAVING, os.fstat(self._lock).st_size)

    def leave(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _locked(self) -> bool:
        # A POSIX lock: children do not inherit it, so an orphaned worker cannot keep the directory from its next owner.
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def part(self, name: str) -> Path:
        """A private directory inside it."""
        path = self.directory / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def _hold(self, patience_s: float) -> None:
        began_s = time.monotonic()
        while not self._locked():
            said = os.pread(self._lock, 200, 0)
            # One whose manager was killed this instant has not noticed yet.
            worth_s = patience_s if _LEAVING in said else min(patience_s, _NOTICE_S)
            if time.monotonic() - began_s < worth_s:
                time.sleep(_LOOK_S)
                continue
            holder = said.decode(errors="replace").strip() or "another process"
            os.close(self._lock)
            self._lock = -1
            raise StartFailed(why=f"another instance of this endpoint is running ({holder})") from None
        started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode(), 0)


def home() -> Path:
    """`$MUSTER_HOME`, or `~/.muster`."""
    named = os.environ.get("MUSTER_HOME")
    return Path(named).expanduser() if named else Path.home() / ".muster"
