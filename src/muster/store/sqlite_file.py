"""The database file: readable by its owner only, in a directory that nobody else writes."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("muster.store")


def prepare(path: str) -> None:
    """Create what is missing, with modes 0700 and 0600; say so when what is there is too open."""
    directory = Path(path).parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    mode = directory.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        log.warning(
            "%s is writable by others: they could replace the database in it. Fix: chmod go-w %s", directory, directory
        )
    if Path(path).stat().st_mode & 0o077:
        log.warning("%s can be read by others, and it holds password hashes. Fix: chmod 600 %s", path, path)
