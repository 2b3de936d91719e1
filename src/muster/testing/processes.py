"""Processes of a test or a demo: started, listened to, and stopped by their ids."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from muster.testing.namespace import Namespace

BIN = Path(sys.executable).parent


class StageError(Exception):
    """Something did not come up or did not do its part; the text shows its last words."""


class Running:
    """A process whose lines are kept, so that a failure can show the last ones."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.process = process
        self.lines: deque[str] = deque(maxlen=2000)
        self._news = threading.Condition()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError), stream:  # ValueError: closed while the interpreter goes down
            for line in stream:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()

    def wait_for(self, text: str, patience_s: float = 30) -> str:
        """The first line that contains it; StageError when the process ends or the patience does."""
        deadline = time.monotonic() + patience_s
        with self._news:
            while True:
                found = next((line for line in self.lines if text in line), None)
                if found is not None:
                    return found
                ended = self.process.poll() is not None and not self._news.wait(0.3)
                if ended or time.monotonic() > deadline:
                    raise StageError(f"{self.name} never said {text!r}; its last lines:\n" + self.last_words())
                self._news.wait(0.5)

    def last_words(self, count: int = 30) -> str:
        return "\n".join(list(self.lines)[-count:])

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, patience_s: float = 20) -> int:
        """SIGTERM, then SIGKILL to its whole session; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode


class Processes:
    """`with Processes() as processes:` starts parts in order and stops them in reverse."""

    def __init__(self, space: Namespace | None = None) -> None:
        self.space = space
        self.running: list[Running] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for running in reversed(self.running):
            running.stop()

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, *, account: str | None = None
    ) -> Running:
        process = subprocess.Popen(
            self._inside(command, account),
            env={**clean_environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running = Running(name, process)
        self.running.append(running)
        return running

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        account: str | None = None,
        patience_s: float = 60,
    ) -> str:
        """Its standard output; StageError with its last words when it fails."""
        full = {**clean_environment(), **(env or {})}
        inside = self._inside(command, account)
        try:
            done = subprocess.run(
                inside,
                env=full,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=patience_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise StageError(f"{command} took longer than {patience_s} s: {late.stdout!r} {late.stderr!r}") from None
        if done.returncode != 0:
            said = f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}".strip()
            raise StageError(f"{' '.join(map(str, command))[:300]} failed with {done.returncode}: {said}")
        return done.stdout

    def _inside(self, command: Sequence[str], account: str | None) -> list[str]:
        if self.space is None:
            return list(command)
        return self.space.command(command, account)


def clean_environment() -> dict[str, str]:
    """What every part inherits: nothing that could steer it elsewhere."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("MUSTER_", "GLOBUS_", "PYTHON", "COV_"))}
    return keep | {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
