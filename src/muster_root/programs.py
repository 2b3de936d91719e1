"""Starting programs: always a fresh process that changes itself, so none of our Python runs between fork and exec."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from muster_root.settings import Site

HERE = os.path.dirname(os.path.realpath(__file__))
READS = ":".join([sys.executable, os.path.realpath(sys.executable), os.path.join(os.path.dirname(HERE), "muster")])
Process = subprocess.Popen[bytes]


def spawn(site: Site, program: str, facts: Sequence[str], keep: list[int], streams: Sequence[int]) -> Process:
    """One of our own programs; nothing of this process comes along but what is named here."""
    call, env = [sys.executable, "-I", "-S", os.path.join(HERE, program), *facts], {"LANG": "C.UTF-8"}
    stdin, out, err = streams
    inherited = env if site.privileged else None  # without root the environment is the user's own
    return subprocess.Popen(call, stdin=stdin, stdout=out, stderr=err, pass_fds=keep, cwd="/", env=inherited)


def become(
    site: Site, user: str, place: str, module: list[str], keep: list[int], streams: Sequence[int], tell: int
) -> Process:
    """A module of `muster`, as `user`; `tell` hears how it went."""
    agent = os.stat(site.path("agent")).st_uid
    whom = [site.settings["min_uid"], f"0,{agent}"] if place == "~" and site.privileged else ["1", "0"]
    facts = [str(tell), *whom, ",".join(map(str, keep)), READS, place, user if site.privileged else ""]
    return spawn(site, "become.py", [*facts, sys.executable, "-I", "-m", *module], [*keep, tell], streams)


def employ(
    site: Site, module: str, facts: Mapping[str, object], lent: list[int], streams: Sequence[int], tell: int
) -> tuple[Process, socket.socket]:
    """The agent, or the registrar: its account, and all it needs of the site as descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    files = site.files()
    hello = {"event": "hello", "name": site.name, "privileged": site.privileged, **facts}
    socket.send_fds(ours, [json.dumps(hello).encode()], [*lent, *files])
    call = [f"muster.manager.{module}", "--link-fd", str(theirs.fileno())]
    process = become(site, site.settings["agent_user"], "/", call, [theirs.fileno()], streams, tell)
    theirs.close()
    for fd in files:
        os.close(fd)
    return process, ours
