"""Results on disk until the broker has promised to keep them.

Segments `00000001.results` ...: records of length, CRC-32 and a bundle of results (`wire.bundle`). A torn tail, left
by a process that died while writing, ends the reading of its segment. A segment goes when all in it is confirmed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from zlib import crc32

from muster.endpoint.disk import append
from muster.errors import UndecodableMessage
from muster.wire.bundle import ResultItem, decode_results

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
_HEAD = Struct(">II")
_RECORD_LIMIT_BYTES = 256 * 1024 * 1024


class Spool:
    """Append bundles, get a ticket for each; a ticket is given back when the broker has the bundle."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory
        self._old = sorted(directory.glob("*.results"))
        self._number = max((int(path.stem) for path in self._old if path.stem.isdigit()), default=0)
        self._file = -1
        self._size = 0
        self._open: dict[int, int] = {}  # segment number -> records in it that nobody confirmed
        self.failing = False

    def inherited(self) -> Iterator[list[ResultItem]]:
        """The bundles that earlier incarnations left, oldest first; `forget_inherited` when they are confirmed."""
        for path in self._old:
            try:
                raw = path.read_bytes()
            except OSError as why:
                log.warning("%s cannot be read (%s); its results stay there.", path, why)
                continue
            yield from _bundles(raw, path)

    def forget_inherited(self) -> None:
        for path in self._old:
            path.unlink(missing_ok=True)
        self._old = []

    def append(self, bundle: bytes) -> int | None:
        """Keep a bundle; the ticket, or None when the disk refused it (it then lives in memory alone)."""
        record = _HEAD.pack(len(bundle), crc32(bundle)) + bundle
        try:
            if self._file < 0 or self._size > SEGMENT_BYTES:
                self._roll()
            append(self._file, record)
        except OSError as why:
            self._refused(why)
            return None
        if self.failing:
            log.warning("Results can be written to disk again.")
        self.failing = False
        self._size += len(record)
        self._open[self._number] += 1
        return self._number

    def confirm(self, ticket: int | None) -> None:
        """The broker has the bundle of this ticket."""
        if ticket is None:
            return
        self._open[ticket] -= 1
        if self._open[ticket]:
            return
        if ticket == self._number and self._file >= 0:
            os.ftruncate(self._file, 0)
            self._size = 0
        else:
            del self._open[ticket]
            self._path(ticket).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave nothing behind but what is not confirmed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not self._open.get(self._number):
                self._path(self._number).unlink(missing_ok=True)

    def _roll(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._number += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path(self._number), flags, 0o600)
        self._size = 0
        self._open[self._number] = 0

    def _refused(self, why: OSError) -> None:
        """Cut off the torn record, so that later ones can be read."""
        if not self.failing:
            log.warning("Results cannot be written to disk (%s): they are kept in memory until they are sent.", why)
        self.failing = True
        if self._file >= 0:
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                os.close(self._file)  # the next append begins a new segment
                self._file = -1

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08d}.results"


def _bundles(raw: bytes, path: Path) -> Iterator[list[ResultItem]]:
    at = 0
    while at + _HEAD.size <= len(raw):
        size, checksum = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        body = raw[at : at + size]
        if size > _RECORD_LIMIT_BYTES or len(body) != size or crc32(body) != checksum:
            log.warning("%s ends with a torn record, as after a kill; its task will be answered for.", path)
            return
        at += size
        try:
            yield decode_results(body)
        except UndecodableMessage as why:
            log.warning("%s holds a record that is no bundle (%s)", path, why)
