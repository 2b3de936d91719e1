"""Starting programs: always a fresh process that changes itself, so none of our Python runs between fork and exec."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, suppress

from muster_root.settings import Site

HERE = os.path.dirname(os.path.realpath(__file__))
READS = ":".join([sys.executable, os.path.realpath(sys.executable), os.path.join(os.path.dirname(HERE), "muster")])


class Process:
    """A process of ours. Its number may belong to another one by now, its descriptor never does."""

    def __init__(self, site: Site, program: str, facts: Sequence[str], keep: list[int], streams: Sequence[int]) -> None:
        call, env = [sys.executable, "-I", "-S", os.path.join(HERE, program), *facts], {"LANG": "C.UTF-8"}
        stdin, out, err = streams
        inherited = env if site.privileged else None  # without root the environment is the user's own
        self.opened = subprocess.Popen(call, stdin=stdin, stdout=out, stderr=err, pass_fds=keep, cwd="/", env=inherited)
        self.pid, self.pidfd = self.opened.pid, os.pidfd_open(self.opened.pid)

    def send(self, number: int) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)

    def end(self) -> Generator[int, None, int]:
        """Its status, once there is one. What it left in its process group ends with it."""
        yield self.pidfd
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)  # before the wait, which gives the number away
        os.close(self.pidfd)
        self.pidfd = -1
        return self.opened.wait()


def become(
    site: Site, user: str, place: str, module: Sequence[str], keep: list[int], streams: Sequence[int]
) -> tuple[Process, int]:
    """A module of `muster`, as `user`; the descriptor tells how it went, and ends."""
    agent = os.stat(site.path("agent")).st_uid
    whom = [site.settings["min_uid"], f"0,{agent}"] if place == "~" and site.privileged else ["1", "0"]
    ear, tell = os.pipe()
    facts = [str(tell), *whom, ",".join(map(str, keep)), READS, place, user if site.privileged else ""]
    try:
        facts += [sys.executable, "-I", "-m", *module]
        return Process(site, "become.py", facts, [*keep, tell], streams), ear
    except OSError:
        os.close(ear)
        raise
    finally:
        os.close(tell)


def employ(
    site: Site, module: str, facts: Mapping[str, object], lent: list[int], streams: Sequence[int]
) -> tuple[Process, int, socket.socket]:
    """The agent, or the registrar: its account, and all it needs of the site as descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ExitStack() as held:
        hello = {"event": "hello", "name": site.name, "privileged": site.privileged, **facts}
        socket.send_fds(ours, [json.dumps(hello).encode()], [*lent, *site.files(held)])
        call = [f"muster.manager.{module}", "--link-fd", str(theirs.fileno())]
        return *become(site, site.settings["agent_user"], "/", call, [theirs.fileno()], streams), ours
