"""Where a user endpoint writes: endpoint.log, and, until it has checked in, sentences for whoever started it."""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

NAME = "endpoint.log"
LIMIT_BYTES = 100 * 1024 * 1024
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class EarlyLog:
    """The standard error that the starter reads; its last line says why a start failed."""

    def __init__(self, file: int = 2) -> None:
        self._file = os.dup(file)
        os.set_inheritable(self._file, False)

    def say(self, sentence: str) -> None:
        """One line; nobody may be listening any more."""
        try:
            os.write(self._file, f"{' '.join(sentence.split())}\n".encode(errors="replace"))
        except OSError:
            logging.getLogger(__name__).debug("Nobody reads the early log")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def to_file(path: Path, *, debug: bool, everything: bool = True) -> None:
    """Log to `path` from now on; `everything` sends there whatever writes to standard output and error, too."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LIMIT_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    set_level(debug=debug)
    if not everything:
        return
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def set_level(*, debug: bool) -> None:
    logging.getLogger().setLevel(logging.DEBUG if debug else logging.INFO)
    # Whatever pika knows it also raises, and we say it in our own words.
    for name, level in (("pika", logging.CRITICAL), ("parsl", logging.WARNING), ("asyncio", logging.WARNING)):
        logging.getLogger(name).setLevel(logging.INFO if debug else level)
