"""The user endpoints that were started here: what each said before it had a log of its own, and how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_FILE = Path("children.json")  # in our state directory
_TAIL_BYTES = 4096
_EARLY_LIMIT_BYTES = 1024 * 1024  # who writes more there before the check-in is not heard any further
_QUICK_S = 60  # one that fails within this time failed at starting
_CONFIGURATION = 78  # sysexits.h: what it refuses, it refuses again
_SHOWN_CHARACTERS = 1000


class EarlyLog:
    """The last words on a pipe: a user endpoint writes there until it has checked in."""

    def __init__(self) -> None:
        self._read, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.write_end, True)
        self._tail, self._left = b"", _EARLY_LIMIT_BYTES
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._more)

    def last_line(self) -> str:
        """Empty when it said nothing."""
        while self._read >= 0 and self._more():
            pass
        lines = self._tail.decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_SHOWN_CHARACTERS]

    def close(self) -> None:
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            os.close(self._read)
            self._read = -1

    def _more(self) -> bool:
        try:
            said = os.read(self._read, _TAIL_BYTES)
        except BlockingIOError:
            return False
        self._tail = (self._tail + said)[-_TAIL_BYTES:]
        self._left -= len(said)
        if not said or self._left < 0:
            self.close()
        return bool(said)


class Children:
    """Names and start times, kept on disk: a new agent can tell which ones ended while nobody looked."""

    def __init__(self, running: list[str]) -> None:
        before = _load()
        self._since_s = {name: before.get(name, time.time()) for name in running}
        self._early: dict[str, EarlyLog] = {}
        self._untold = {name: since_s for name, since_s in before.items() if name not in self._since_s}
        self._save()

    def lost(self) -> list[dict[str, Any]]:
        """Those that ended while no agent listened; kept on disk until the service was told."""
        return [exit_fact(name, "EXITED", "it stopped") for name in self._untold]

    def told(self, facts: list[dict[str, Any]]) -> None:
        """The service knows of these now."""
        ids = {fact["endpoint_id"] for fact in facts}
        untold = {name: at_s for name, at_s in self._untold.items() if name.rpartition(".")[2] not in ids}
        if untold != self._untold:
            self._untold = untold
            self._save()

    @property
    def running(self) -> bool:
        """Whether any of them does."""
        return bool(self._since_s)

    def started(self, name: str, early: EarlyLog) -> None:
        self._since_s[name] = time.time()
        self._early[name] = early
        self._save()

    def ended(self, name: str, status: int) -> dict[str, Any]:
        """What the service is told of it."""
        since_s = self._since_s.pop(name, 0.0)
        lived_s, self._untold[name] = time.time() - since_s, since_s
        early = self._early.pop(name, None)
        self._save()
        why = early.last_line() if early else ""
        if early:
            early.close()
        if status == 0:
            return exit_fact(name, "EXITED", "it stopped")
        cause = why or _cause(status)
        if status == _CONFIGURATION:
            return exit_fact(name, "START_FAILED", cause)
        return exit_fact(name, "EXITED", cause, quick=lived_s < _QUICK_S)

    def _save(self) -> None:
        fresh = _FILE.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(self._untold | self._since_s))
            fresh.replace(_FILE)
        except OSError as why:
            log.warning("The list of user endpoints cannot be written: %s", why)


def exit_fact(name: str, code: str, public: str, *, quick: bool = False) -> dict[str, Any]:
    """One item of `exits` in our heartbeat; a user endpoint's id is the end of its name."""
    return {"endpoint_id": name.rpartition(".")[2], "code": code, "public": public, "quick": quick}


def _cause(status: int) -> str:
    if status < 0:  # real-time signals have no names
        name = next((one.name for one in signal.Signals if one == -status), f"signal {-status}")
        return f"it was ended by {name}"
    return f"it ended by itself (status {status}); the last lines of its endpoint.log say why"


def _load() -> dict[str, float]:
    try:
        kept = json.loads(_FILE.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
