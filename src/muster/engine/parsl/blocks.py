"""Blocks of workers: batch jobs that come when calls wait, go when they are idle, and are given up when they fail.

Parsl's own scaling thread looks every five seconds; this one is told. All that asks Parsl or the batch system runs in
a thread, one question at a time: each may take as long as the scheduler's commands do.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_YOUNG_POLL_S = 1.0  # LocalProvider: asking costs nothing
_COMMAND_S = 10.0
_GIVE_UP_AFTER = 3
_TAIL_CHARACTERS = 1500


class Blocks:
    """What one executor has in the batch system. Not thread-safe: the engine calls it from one thread at a time."""

    def __init__(self, executor: Any, *, max_idletime_s: float, enabled: bool) -> None:
        self._executor = executor
        self._provider = executor.provider
        self._max_idletime_s = max_idletime_s
        self._enabled = enabled
        self._polled_at_s = 0.0
        self._busy_at_s = time.monotonic()
        self.managers: list[dict[str, Any]] = []
        self.active = 0  # submitted and not ended
        self.failures = 0  # blocks in a row that ended before a worker of theirs registered
        self.cause = ""

    @property
    def capacity(self) -> int:
        """Workers in one block."""
        return max(1, int(self._provider.nodes_per_block * self._executor.workers_per_node))

    @property
    def most_workers(self) -> int:
        return self.capacity * max(1, int(self._provider.max_blocks))

    @property
    def workers(self) -> int:
        """Workers that are connected now."""
        return sum(int(manager["worker_count"]) for manager in self.managers if manager["active"])

    @property
    def given_up(self) -> bool:
        return self.failures >= _GIVE_UP_AFTER

    def first(self, waiting: int) -> None:
        """The blocks to start with."""
        wanted = self._clamp(max(int(self._provider.init_blocks), self._needed(waiting)))
        self._out(wanted)

    def tend(self, waiting: int) -> None:
        """Look at what there is, then start or stop what is needed for so many waiting or running calls."""
        self._look()
        if waiting:
            self._busy_at_s = time.monotonic()
        if not self._enabled or self.given_up:
            return
        wanted = self._clamp(self._needed(waiting))
        if wanted > self.active:
            self._out(wanted - self.active)
        elif wanted < self.active:
            self._in(self.active - wanted, waiting)

    def cancel_all(self) -> None:
        """Take every block out of the batch system; the workers' machine is this one for LocalProvider."""
        jobs = list(self._executor.blocks_to_job_id.values())
        groups = self._local_groups(jobs)
        try:
            if jobs:
                self._provider.cancel(jobs)
        except Exception:  # noqa: BLE001 - Parsl raises anything here, and the rest must still be stopped
            _log.warning("some blocks could not be cancelled: %s", jobs, exc_info=True)
        for group in groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def _local_groups(self, jobs: list[Any]) -> list[int]:
        groups = []
        for job in jobs:
            pid = getattr(self._provider, "resources", {}).get(job, {}).get("remote_pid")
            if pid is not None and type(self._provider).__name__ == "LocalProvider":
                with suppress(ProcessLookupError):
                    groups.append(os.getpgid(int(pid)))
        return [group for group in groups if group != os.getpgrp()]

    def _needed(self, waiting: int) -> int:
        return ceil(waiting * float(self._provider.parallelism) / self.capacity)

    def _clamp(self, blocks: int) -> int:
        return max(int(self._provider.min_blocks), min(blocks, int(self._provider.max_blocks)))

    def _out(self, count: int) -> None:
        if count > 0:
            self._executor.scale_out_facade(count)
            self._polled_at_s = 0.0 if self._executor._simulated_status else self._polled_at_s  # noqa: SLF001 - Parsl keeps failed submissions there
            self._count()

    def _in(self, count: int, waiting: int) -> None:
        """Stop blocks that were idle long enough, never a busy one."""
        if waiting and not self.managers:
            return
        if not waiting and time.monotonic() - self._busy_at_s < self._max_idletime_s:
            return
        self._executor.scale_in_facade(count, max_idletime=self._max_idletime_s)
        self._count()

    def _look(self) -> None:
        self.managers = self._executor.command_client.run("MANAGERS", timeout_s=_COMMAND_S)
        now = time.monotonic()
        local = type(self._provider).__name__ == "LocalProvider"
        interval = _YOUNG_POLL_S if local else float(self._provider.status_polling_interval)
        if now - self._polled_at_s < interval:
            return
        self._polled_at_s = now
        self._executor._status = self._executor.status()  # noqa: SLF001 - poll_facade would do the same, less often
        self._bury()
        self._count()

    def _count(self) -> None:
        statuses = self._executor.status_facade
        self.active = sum(not status.terminal for status in statuses.values())

    def _bury(self) -> None:
        """Learn from the blocks that ended, then forget them: Parsl would ask for them for ever."""
        executor = self._executor
        connected = set(executor.command_client.run("CONNECTED_BLOCKS", timeout_s=_COMMAND_S))
        if connected & {block for block, status in executor.status_facade.items() if not status.terminal}:
            self.failures = 0
        for block, status in list(executor.status_facade.items()):
            if not status.terminal:
                continue
            if block in connected or status.state.name in ("SCALED_IN", "CANCELLED"):
                self.failures = 0 if block in connected else self.failures
            else:
                self.failures += 1
                self.cause = _why(status)
                _log.warning("block %s ended before any worker registered: %s", block, self.cause)
            job = executor.blocks_to_job_id.pop(block, None)
            executor.job_ids_to_block.pop(job, None)
            executor._simulated_status.pop(block, None)  # noqa: SLF001 - see above
            executor._status.pop(block, None)  # noqa: SLF001 - see above


def _why(status: Any) -> str:
    """What is known about a block's end: the scheduler's word and what the job wrote."""
    said = [str(status.message or "").strip()]
    for path in (status.stderr_path, status.stdout_path):
        if path:
            with suppress(OSError):
                said.append(Path(path).read_text(encoding="utf-8", errors="replace").strip()[-_TAIL_CHARACTERS:])
    code = "" if status.exit_code is None else f"exit code {status.exit_code}"
    return "; ".join(part for part in (status.state.name.lower(), code, *said) if part)
