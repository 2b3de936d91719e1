"""The parent's side of a worker process: start it, see what it does, end it with all it started."""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from muster.worker.process import RUNNING, SLOTS_BYTES, STARTED_NS, TAKEN_BACK
from muster.worker.task import TaskOptions

_TAIL_BYTES = 2000
_REAP_S = 2.0
_log = logging.getLogger(__name__)
_LIKELY = {
    signal.SIGKILL: "often the kernel's or the batch system's answer to too much memory",
    signal.SIGSEGV: "a crash in native code",
    signal.SIGBUS: "a crash in native code, or a full file system",
    signal.SIGABRT: "native code gave up",
    signal.SIGXCPU: "over the CPU time limit",
}


class Child:
    """One worker process. `socket` carries frames; the slots can be read at any time, even after its death."""

    def __init__(self, options: TaskOptions, log: Path) -> None:
        self.log = log
        self.socket, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe2(os.O_CLOEXEC)
        memory = os.memfd_create("muster-worker", os.MFD_CLOEXEC)
        os.ftruncate(memory, SLOTS_BYTES)
        self._map = mmap.mmap(memory, SLOTS_BYTES)
        self._slots = memoryview(self._map).cast("Q")
        given = (theirs.fileno(), memory, lifeline)
        command = [sys.executable, "-I", "-m", "muster.worker", *map(str, given), json.dumps(options.plain())]
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=given,
                start_new_session=True,
            )
        finally:
            theirs.close()
            for descriptor in (lifeline, memory, output):
                os.close(descriptor)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> int:
        """Number of the call it started last."""
        return int(self._slots[RUNNING])

    @property
    def started_ns(self) -> int:
        """When that was, on the monotonic clock; 0 while nothing runs."""
        return int(self._slots[STARTED_NS])

    def take_back(self, number: int) -> None:
        """Forbid the start of calls up to this number; look at `running` no sooner than some milliseconds later."""
        self._slots[TAKEN_BACK] = number

    def signal(self, number: int) -> None:
        """To the worker and all it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def exit_descriptor(self) -> int:
        """A descriptor that becomes readable when the process has ended; the caller closes it."""
        return os.pidfd_open(self.pid)

    def close(self) -> None:
        """End whatever is left of it and give its descriptors back; only after this is the pid free again."""
        self.signal(signal.SIGKILL)
        for pid in _session_members(self.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            self.process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            _log.warning("worker %d does not die: it hangs in the kernel, often in a file system", self.pid)
        self.socket.close()
        with suppress(OSError):
            os.close(self._lifeline)
        self._slots.release()
        self._map.close()

    def cause(self) -> str:
        """Why it is dead, in words, once it is."""
        code = self.process.poll()
        return "it closed its connection" if code is None else explain_exit(code)

    def last_words(self) -> str:
        """The end of what it wrote on its standard error and output."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""


def explain_exit(code: int) -> str:
    """A return code as Popen gives it, in words."""
    if code >= 0:
        return f"it exited with code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"killed by signal {-code}"
    likely = _LIKELY.get(number)
    return f"killed by {number.name}" + (f", {likely}" if likely else "")


def _session_members(session: int) -> list[int]:
    """Processes of this session that left its first process group: a shell's job control does that."""
    members = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if stat.rpartition(")")[2].split()[3] == str(session):
            members.append(int(entry.name))
    return members
