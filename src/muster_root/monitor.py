"""The monitor, root's part of a manager. `muster-endpoint start` turns into it, as root or as the manager's owner.

It answers a table of verbs that the agent asks over one socket, and watches its children. It must never touch the
network, name services or a home directory, and reads nothing from outside but an order whose seal it found good.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import selectors
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

from muster_root.order import LIMIT_BYTES, Gate, No, Order
from muster_root.programs import Process, become, employ, spawn
from muster_root.settings import MAPPING_KEY, Site, Unusable, open_trusted

HANDED = ("--template-fd", "--schema-fd", "--environment-fd", "--manager-config-fd", "--lifeline-fd")
START_S, GRACE_S, LONGEST_PAUSE_S, NEVER = 30, 10, 60, float("inf")
REQUEST = re.compile(rb"(start|stop|list) ([0-9]{1,9})\n")
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
UNTOLD = "The site cannot start user endpoints now; its administrator finds the cause in the log."
Steps = Generator[int, None, None]  # a job: each `yield fd` waits until that descriptor can be read


class Malformed(Exception):
    """No request that our agent would make: it is broken, or no longer ours."""


@dataclass
class Child:
    """A user endpoint, from its order to its exit. A start that takes beyond `until_s` is ended."""

    until_s: float
    running: bool = False
    pidfd: int = -1

    def send(self, number: int) -> None:
        """To this very process: its number may belong to another one by now, its descriptor never does."""
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)


class Monitor:
    """One manager at work. `run` returns when it was told to stop and everything has ended."""

    def __init__(self, site: Site, lent: list[int], log: int, *, console: bool) -> None:
        self.site, self.lent, self.places = site, lent, [log, 2] if console else [log]
        self.poll, self.children, self.link = selectors.DefaultSelector(), dict[str, Child](), socket.socket()
        self.agent: Process | None = None
        self.agent_at_s, self.pause_s, self.stop_asked, self.stop_at_s, self.marks = 0.0, 0.5, False, 0.0, ""
        self.lifeline, (self.heard, self.agent_log) = os.pipe(), os.pipe()
        record = site.record()
        self.gate = Gate(record["endpoint_id"], bytes.fromhex(record["seal_key"]), time.time())
        self.owners = record["owners"].split()
        self.go(self.overhear(self.heard))

    def say(self, text: str) -> None:
        """Into the log: nothing that a terminal would obey, and no more than a stated length of it."""
        for line in filter(None, text.split("\n")):
            shown = "".join(char if char.isprintable() else "?" for char in line[:2000])
            entry = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shown}\n"
            for place in self.places:
                with suppress(OSError):  # a full disk or a closed terminal stops nobody's work
                    os.write(place, entry.encode())

    def overhear(self, ear: int) -> Steps:
        """What the agent, the mapping and `become` have to say to the administrator."""
        while True:
            yield ear
            self.say(os.read(ear, 65536).decode(errors="replace").lstrip("+"))

    def go(self, job: Steps) -> None:
        """Run it up to its next wait, or its end."""
        fd = next(job, None)
        if fd is not None:
            self.poll.register(fd, selectors.EVENT_READ, job)

    def tell(self, **message: object) -> None:
        with suppress(OSError):  # gone, or stuck: it is ended below, and the next one is told what runs
            self.link.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
            return
        if self.agent:
            self.agent.kill()

    def serve(self) -> Steps:
        """One agent, from hello to its end. Its socket closes when its process does."""
        running = [name for name, child in self.children.items() if child.running]
        facts, since_s = {"endpoint_id": self.gate.recipient, "running": running}, time.monotonic()
        streams = (subprocess.DEVNULL, self.agent_log, self.agent_log)
        self.marks = self.site.marks()
        self.agent, self.link = agent, link = employ(self.site, "agent", facts, self.lent, streams, self.agent_log)
        pidfd = os.pidfd_open(agent.pid)
        try:
            while True:
                yield link.fileno()
                self.obey(link)
        except (Malformed, OSError) as why:
            if why.args != (b"",):
                self.say(f"The agent sent what none of ours sends ({why!r:.100}); it is ended.")
        agent.kill()
        yield pidfd
        self.say(f"The agent ended ({agent.wait()}); user endpoints stay.")
        os.close(pidfd)
        link.close()
        self.pause_s = 0.5 if time.monotonic() - since_s > LONGEST_PAUSE_S else min(LONGEST_PAUSE_S, self.pause_s * 2)
        self.agent, self.agent_at_s = None, time.monotonic() + self.pause_s

    def obey(self, link: socket.socket) -> None:
        """One request, from the table or not at all."""
        body, fds, flags, _ = socket.recv_fds(link, 2 * LIMIT_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        asked = REQUEST.match(body)
        whole = asked and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        if asked and whole and len(fds) == (2 if asked[1] == b"start" else 0):
            self.go(VERBS[asked[1]](self, int(asked[2]), body[asked.end() :], fds))
            return
        for fd in fds:
            os.close(fd)
        raise Malformed(body)

    def stop(self, _number: int, body: bytes, _fds: list[int]) -> Steps:
        """Ask a user endpoint to end; its name is all the agent can choose."""
        if child := self.children.get(body.decode(errors="replace")):
            child.send(signal.SIGTERM)
        yield from ()

    def running(self, number: int, _body: bytes, _fds: list[int]) -> Steps:
        """The names of those that run."""
        self.tell(answer=number, running=[name for name, child in self.children.items() if child.running])
        yield from ()

    def start(self, number: int, body: bytes, fds: list[int]) -> Steps:
        """Become the mapped user. The first descriptor holds the secrets: it is passed on, never read."""
        order, child = None, Child(time.monotonic() + START_S)
        try:
            if not stat.S_ISFIFO(os.fstat(fds[1]).st_mode) or not sealed(fds[0]):
                raise Malformed("descriptors")
            order = self.gate.check(body[32:], body[:32], time.time())
            if order.name in self.children:
                raise No("RUNNING", "It runs already.")
            if self.stop_asked:
                raise No("STALE", "The manager is stopping.")
            self.gate.remember(order, time.time())
            self.children[order.name] = child
            user, identity = (yield from self.map(child, order)) if self.site.privileged else ("", self.owner_in(order))
            if not identity:
                raise No("IDENTITY_UNMAPPED", "Identity failed to map to a local user name.", f"{order.identities}")
            yield from self.live(child, order, number, user, identity, fds)
        except (No, Unusable, OSError) as no:
            known = no if isinstance(no, No) else No("START_FAILED", UNTOLD)
            self.say(f"No user endpoint {order.name if order else ''}: {known.code} {no}"[:1000])
            self.tell(answer=number, code=known.code, public=known.public)
        finally:
            while fds:
                os.close(fds.pop())
            if order and self.children.get(order.name) is child:
                del self.children[order.name]

    def owner_in(self, order: Order) -> str:
        return next((one["id"] for one in order.identities if one.get("id") in self.owners), "")

    def map(self, child: Child, order: Order) -> Generator[int, None, tuple[str, str]]:
        """Account and identity, both empty when there is none."""
        rules = open_trusted(self.site.path(self.site.settings[MAPPING_KEY]), self.site.owner)
        identities, said = os.memfd_create("identities"), os.memfd_create("said")
        os.pwrite(identities, json.dumps(order.identities).encode(), 0)
        facts, streams = [self.gate.recipient, str(identities)], (rules, said, self.agent_log)
        process = spawn(self.site, "mapping.py", facts, [identities], streams)
        child.pidfd = os.pidfd_open(process.pid)
        yield child.pidfd
        status, answer = process.wait(), os.pread(said, 4096, 0).decode()
        for fd in (child.pidfd, rules, identities, said):
            os.close(fd)
        if status != 0:
            raise Unusable(f"the identity mapping ended with {status}")
        user, _, identity = answer.partition("\n")
        return user, identity

    def live(self, child: Child, order: Order, number: int, user: str, identity: str, fds: list[int]) -> Steps:
        """From `become` to the exit."""
        user, given = user or os.environ.get("USER", "its owner"), [*self.site.files(), self.lifeline[0]]
        mapped = json.dumps({"globus": {"id": identity}, "candidates": [[{identity: [user]}]]})
        module = ["muster.endpoint", "--name", order.name, "--payload-sha256", order.payload_sha256.hex()]
        module += ["--mapped", mapped, *(word for pair in zip(HANDED, map(str, given), strict=True) for word in pair)]
        ear, tell = os.pipe()
        process = become(self.site, user, "~", module, given, (fds[0], fds[1], fds[1]), tell)
        child.pidfd = os.pidfd_open(process.pid)
        for fd in (tell, *given[:-1], fds.pop(), fds.pop()):
            os.close(fd)
        label = f"[({user}, {order.name}) muster-endpoint start {order.name} --die-with-parent]"
        self.say(f"Creating new user endpoint (pid: {process.pid}) {label}")
        heard = b""
        while not (yield ear) and (told := os.read(ear, 1024)):
            heard += told
        os.close(ear)
        if heard == b"+":  # and then silence: it is the user's process now
            child.running, child.until_s, who = True, NEVER, order.identities[0].get("id")
            self.say(f"Command process successfully forked for '{user}' (Globus effective identity: {who}).")
            self.tell(answer=number, code="STARTED")
        yield child.pidfd
        status = process.wait()
        os.close(child.pidfd)
        if not child.running:
            kind, _, why = heard.decode(errors="replace").lstrip("+").partition(": ")
            if kind == "KeyError":
                raise No("IDENTITY_UNMAPPED", "Identity mapped to a local user name, but local user does not exist.")
            raise No("START_FAILED", why or f"It took more than {START_S} s to become {user}.")
        how = "normally" if status == 0 else f"with {signal.Signals(-status).name if status < 0 else status}"
        self.say(f"Command stopped {how} ({process.pid}) {label}")
        self.tell(event="exited", name=order.name, status=status)

    def run(self, *, clock: bool) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: setattr(self, "stop_asked", True))
        while self.children or self.agent or not self.stop_asked:
            for key, _ in self.poll.select(timeout=0.5):
                self.poll.unregister(key.fd)
                self.go(key.data)
            self.tick(time.monotonic())
            if clock:
                with suppress(OSError):
                    os.write(1, f"\r----> {time.ctime()}".encode())

    def tick(self, now_s: float) -> None:
        for child in self.children.values():
            if now_s > child.until_s:
                child.send(signal.SIGKILL)
        if self.stop_asked:
            self.wind_up(now_s)
        elif not self.agent and now_s >= self.agent_at_s:
            self.go(self.serve())
        elif self.agent and self.marks != self.site.marks():
            self.say("The site's files changed: another agent registers them.")
            self.marks, self.pause_s = self.site.marks(), 0.25
            self.agent.terminate()

    def wind_up(self, now_s: float) -> None:
        """Children first, so that the agent can still tell the service how they ended."""
        if not self.stop_at_s:
            self.stop_at_s = now_s
            self.tell(event="stopping")
            os.close(self.lifeline[1])
            for child in self.children.values():
                child.until_s = now_s + GRACE_S
                child.send(signal.SIGTERM)
        elif self.agent and now_s > self.stop_at_s + 2 * GRACE_S:
            self.agent.kill()
        elif not self.children:
            self.tell(event="last")


def sealed(fd: int) -> bool:
    """A memory file that nobody can change any more."""
    with suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    return False


VERBS = {b"start": Monitor.start, b"stop": Monitor.stop, b"list": Monitor.running}
