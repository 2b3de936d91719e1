"""Puts this process into the state of a careless ancestor: what `become` must not let through."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

STRAY = 77
_LIBC = ctypes.CDLL(None)


def make_dirty() -> None:
    os.setgroups([0, 27])
    os.umask(0)
    os.chdir("/")
    os.dup2(os.open("/etc/hostname", os.O_RDONLY), STRAY, inheritable=True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    _keep_inheritable()


def _keep_inheritable() -> None:
    """CAP_CHOWN in the inheritable set: it survives a change of ids."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert _LIBC.capget(header, data) == 0
    data[2] |= 1
    assert _LIBC.capset(header, data) == 0
