"""Many calls as one task of Parsl's HighThroughputExecutor. Imported by an HTEX worker, as the user, on a node.

The calls run in a worker process of ours below the HTEX worker, so a crash in one of them costs that one only, and
the answer names it. It must never let an exception out: HTEX would lose the results of all the other calls with it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import select
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from muster.errors import TaskTimeout, WorkerLost
from muster.worker.child import Child
from muster.worker.process import Frames, frame
from muster.worker.task import TaskOptions

Row = tuple[int, bytes, str, tuple[str, ...]]  # number of the code, task, payload, result serializers
Answer = tuple[str, str | None, str | None, int | None, int | None]

_TRIES = 3
_EARLY_DEATHS = 3
_POLL_MS = 250
_RECV_BYTES = 1 << 20


def pack_bundle(
    options: TaskOptions, timeout_s: float | None, logs: str, codes: dict[int, str], rows: list[Row]
) -> bytes:
    """What travels to the node. Plain pickle of plain data: the node may run another Python."""
    return pickle.dumps((options.plain(), timeout_s, logs, codes, rows), 4)


def unpack_answers(data: bytes) -> tuple[str, list[Answer]]:
    """The details of the worker, and one answer for each row, in their order."""
    details, answers = pickle.loads(data)  # noqa: S301 - from our own other half
    return details, answers


def run(data: bytes) -> bytes:
    """Entry point for HTEX: run these calls here, answer for each."""
    plain, timeout_s, logs, codes, rows = pickle.loads(data)  # noqa: S301 - from our own other half
    options = TaskOptions.of(plain)
    keeper = _KEEPERS.get("keeper")
    if keeper is None or keeper.options != options:
        if keeper is not None:
            keeper.end()
        keeper = _KEEPERS["keeper"] = Keeper(options, Path(logs))
        atexit.register(keeper.end)
    answers = keeper.run(codes, rows, timeout_s)
    return pickle.dumps((keeper.details, answers), 4)


class Keeper:
    """Keeps one worker process alive below this one, and knows what it runs."""

    def __init__(self, options: TaskOptions, logs: Path) -> None:
        self.options = options
        self.details = ""
        self._log = logs / f"worker-{socket.gethostname()}-{os.getpid()}.log"
        self._child: Child | None = None
        self._frames = Frames()
        self._environment: dict[str, str] = {}
        self._manager = os.getppid()
        self._base = 0  # numbers of calls that were used up

    def run(self, codes: dict[int, str], rows: list[Row], timeout_s: float | None) -> list[Answer]:
        """One answer for each row."""
        answers: dict[int, Answer] = {}
        tries = early = 0
        while len(answers) < len(rows):
            open_rows = {at: row for at, row in enumerate(rows) if at not in answers}
            progress = len(answers)
            trouble = self._attempt(codes, open_rows, answers, timeout_s)
            if not trouble:
                continue
            tries = 0 if len(answers) > progress else tries + 1
            early = early + 1 if not self.details else 0
            if tries >= _TRIES or early >= _EARLY_DEATHS:
                answers.update((at, _lost(WorkerLost(why=trouble))) for at in open_rows if at not in answers)
        return [answers[at] for at in range(len(rows))]

    def end(self) -> None:
        """End the worker process and what it started."""
        if self._child is not None:
            child, self._child = self._child, None
            child.close()

    def _attempt(
        self, codes: dict[int, str], rows: dict[int, Row], answers: dict[int, Answer], timeout_s: float | None
    ) -> str:
        """Run these until all are answered, or the process died: then why."""
        if self._child is None or self._environment != os.environ:
            self.end()
            self._environment = dict(os.environ)  # HTEX sets variables for each task: MPI ranks, accelerators
            try:
                self._child = Child(self.options, self._log)
            except OSError as why:
                return str(why)
            self._frames = Frames()
            self._base = 0
        child, base = self._child, self._base
        self._base += max(rows) + 1
        overdue: list[int] = []  # rows that were ended for their time
        calls = [(base + at + 1, *row) for at, row in rows.items()]
        with suppress(OSError):  # its death is told below
            child.socket.sendall(frame((True, codes, calls)))
            self._collect(child, base, rows, answers, timeout_s, overdue)
        if all(at in answers for at in rows):
            return ""
        running = child.running - base - 1
        words = child.last_words()
        self.end()
        cause = child.cause()
        if running in rows and running not in answers:
            late = running in overdue
            answers[running] = _lost(TaskTimeout(limit_s=timeout_s) if late else WorkerLost(why=cause), words)
        return f"{cause}. It said: {words[-500:] or 'nothing'}"

    def _collect(
        self,
        child: Child,
        base: int,
        rows: dict[int, Row],
        answers: dict[int, Answer],
        timeout_s: float | None,
        overdue: list[int],
    ) -> None:
        """Read answers until all have come or no more will."""
        exited = child.exit_descriptor()
        poller = select.poll()
        poller.register(child.socket, select.POLLIN)
        poller.register(exited, select.POLLIN)
        try:
            while not all(at in answers for at in rows):
                ready = {descriptor for descriptor, _ in poller.poll(_POLL_MS)}
                if os.getppid() != self._manager:
                    self._abandon()
                if child.socket.fileno() in ready:
                    data = child.socket.recv(_RECV_BYTES)
                    if not data:
                        return
                    self._read(data, base, answers)
                elif exited in ready:
                    return
                started_ns = child.started_ns
                if timeout_s and started_ns and time.monotonic_ns() - started_ns > timeout_s * 1e9 and not overdue:
                    overdue.append(child.running - base - 1)
                    child.signal(signal.SIGKILL)
        finally:
            os.close(exited)

    def _abandon(self) -> None:
        """The manager is dead and its tasks are told as lost: what was told as lost must not go on."""
        self.end()
        os._exit(1)

    def _read(self, data: bytes, base: int, answers: dict[int, Answer]) -> None:
        for message in self._frames.feed(data):
            if isinstance(message, str):
                self.details = message
            else:
                number, ran = message
                answers[number - base - 1] = ran


def _lost(why: WorkerLost | TaskTimeout, words: str = "") -> Answer:
    text = why.message()
    return (f"{text}\nIts last words:\n{words}" if words else text, why.code, text, None, None)


_KEEPERS: dict[str, Any] = {}
