"""Which tasks were handed to a worker, and which ended: what a new incarnation must know not to run a task twice.

A file of fixed records: one byte (started or ended), 16 bytes of task id, 4 of CRC-32. A process that dies mid-write
leaves a torn last record, which is cut off. Nothing is synced to the disk: after a crash of the whole machine the
broker delivers the tasks again and they run again, which loses nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from muster.endpoint.disk import append

log = logging.getLogger(__name__)

_STARTED, _ENDED = b"S", b"E"
_RECORD_BYTES = 21
_REMEMBERED = 20_000  # ended tasks: longer than any acknowledgement can be under way
_COMPACT_RECORDS = 250_000


class Journal:
    """The journal of one user endpoint. One process has it open at a time (the directory is locked)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: dict[bytes, None] = {}
        self._ended: dict[bytes, None] = {}
        self._failing = False
        for kind, task in self._read():
            self._note(kind, task)
        self._inherited = frozenset(self._started)
        self._records = 0
        self._file = -1
        self._compact()

    def lost(self, task: bytes) -> bool:
        """Whether an earlier incarnation handed it to a worker, and no result is known."""
        return task in self._inherited and task in self._started

    def ended(self, task: bytes) -> bool:
        """Whether its result was confirmed by the broker, as far as remembered."""
        return task in self._ended

    def start(self, tasks: Iterable[bytes]) -> None:
        """Write them down before they run."""
        self._write(_STARTED, tasks)

    def end(self, tasks: Iterable[bytes]) -> None:
        """Write down that their results are confirmed."""
        self._write(_ENDED, tasks)
        if self._records > _COMPACT_RECORDS:
            self._compact()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _note(self, kind: bytes, task: bytes) -> None:
        if kind == _STARTED:
            self._started[task] = None
            return
        self._started.pop(task, None)
        self._ended[task] = None
        if len(self._ended) > _REMEMBERED:
            self._ended.pop(next(iter(self._ended)))

    def _write(self, kind: bytes, tasks: Iterable[bytes]) -> None:
        records = []
        for task in tasks:
            self._note(kind, task)
            records.append(_record(kind, task))
        self._append(records)

    def _append(self, records: list[bytes]) -> None:
        try:
            append(self._file, b"".join(records))
        except OSError as why:
            self._trim()
            if not self._failing:
                log.warning("The journal cannot be written (%s): after a crash, running tasks may run again.", why)
            self._failing = True
        else:
            self._records += len(records)
            self._failing = False

    def _trim(self) -> None:
        """Cut off a part of a record, so that later ones stay readable."""
        try:
            size = os.fstat(self._file).st_size
            os.ftruncate(self._file, size - size % _RECORD_BYTES)
        except OSError:
            log.debug("The journal cannot be trimmed", exc_info=True)

    def _read(self) -> list[tuple[bytes, bytes]]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        whole = range(0, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES)
        records = (raw[at : at + _RECORD_BYTES] for at in whole)
        return [(record[:1], record[1:17]) for record in records if record == _record(record[:1], record[1:17])]

    def _compact(self) -> None:
        """Write what still matters to a new file, and put it in place of the old one at once."""
        records = [_record(_ENDED, task) for task in self._ended] + [_record(_STARTED, task) for task in self._started]
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(b"".join(records))
            fresh.replace(self._path)
        except OSError as why:
            log.warning("The journal cannot be compacted (%s).", why)
        else:
            self._records = len(records)
        self.close()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _record(kind: bytes, task: bytes) -> bytes:
    return kind + task + crc32(kind + task).to_bytes(4, "big")
