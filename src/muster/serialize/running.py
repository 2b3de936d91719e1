"""What running code may know of the process around it: set by the worker, read by ShellFunction."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Mapping
from contextvars import ContextVar

_F_SETSIG = 10  # Linux; the fcntl module has no name for it

task_environment: ContextVar[Mapping[str, str] | None] = ContextVar("task_environment", default=None)

_lifeline: list[int] = []


def live_only_with(descriptor: int) -> None:
    """From now on this process group dies, at once and whatever it does, when the pipe's other end closes."""
    _lifeline[:] = [descriptor]
    _tie(descriptor, os.getpgrp())


def tie_group(group: int) -> int | None:
    """Let another process group share that fate; the descriptor to close when it has ended, None without a lifeline."""
    if not _lifeline:
        return None
    # A fresh open of the same pipe: the signal and its receiver belong to the open file, not to the pipe.
    descriptor = os.open(f"/proc/self/fd/{_lifeline[0]}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    _tie(descriptor, group)
    return descriptor


def _tie(descriptor: int, group: int) -> None:
    fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, -group)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
