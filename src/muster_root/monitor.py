"""The monitor, root's part of a manager. `muster-endpoint start` turns into it, as root or as the manager's owner.

It answers the one request that the agent may make over one socket, and watches its children. It must never touch the
network, name services or a home directory, and reads nothing from outside but an order whose seal it found good.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import selectors
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from muster_root.order import LIMIT_BYTES, Gate, No, Order
from muster_root.programs import Process, become, employ
from muster_root.settings import MAPPING_KEY, Site, memory_file

HANDED = ("--template-fd", "--schema-fd", "--environment-fd", "--manager-config-fd", "--lifeline-fd")
START_S, GRACE_S, PAUSE_S, NEVER = 30, 10, 3, float("inf")
REQUEST = re.compile(rb"start ([0-9]{1,9})\n")
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
STARTING_FDS, SPARE_FDS, MOST_EACH = (
    8,
    64,
    100,
)  # descriptors of a start, and for all else; user endpoints of one account
HEARSAY_LIMIT, LINE_COST = 512 * 1024, 30  # characters a minute in the log, and what the date of a line counts
UNTOLD = "The site cannot start user endpoints now; its administrator finds the cause in the log."
ENDS = {0: "normally", **{-one: f"with {one.name}" for one in signal.Signals}}
Steps = Generator[int, None, None]  # a job: each `yield fd` waits until that descriptor can be read


class Malformed(Exception):
    """No request that our agent would make: it is broken, or no longer ours."""


@dataclass
class Child:
    """A user endpoint, from its order to its exit. A start that takes beyond `until_s` is ended."""

    until_s: float
    user: str = ""
    running: bool = False
    process: Process | None = None

    def send(self, number: int) -> None:
        if self.process:
            self.process.send(number)


class Monitor:
    """One manager at work. `run` returns when it was told to stop and everything has ended."""

    def __init__(self, site: Site, lent: list[int], log: int, *, console: bool) -> None:
        self.site, self.lent, self.places = site, lent, [log, 2] if console else [log]
        self.poll, self.children, self.link = selectors.DefaultSelector(), dict[str, Child](), socket.socket()
        self.agent: Process | None = None
        self.agent_at_s, self.stop_asked, self.stop_at_s, self.minute, self.related = 0.0, False, 0.0, 0, 0
        self.lifeline, (self.heard, self.agent_log) = os.pipe(), os.pipe()
        self.last = os.open(site.path("last_order"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        record, last_s = site.record(), int(os.pread(self.last, 20, 0) or 0)
        self.gate = Gate(record["endpoint_id"], bytes.fromhex(record["seal_key"]), time.time(), last_s)
        self.owners = record["owners"].split()
        self.go(self.overhear())

    def say(self, text: str) -> None:
        """Into the log: nothing that a terminal would obey, and no more than a stated length of it."""
        for line in filter(None, text.split("\n")):
            shown = "".join(char if char.isprintable() else "?" for char in line[:2000])
            entry = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shown}\n"
            for place in self.places:
                with suppress(OSError):  # a full disk or a closed terminal stops nobody's work
                    os.write(place, entry.encode())

    def relate(self, text: str) -> None:
        """Into the log too, but only so much a minute: what the agent can cause must not fill root's disk."""
        if self.minute != (minute := int(time.monotonic() / 60)):
            self.minute, self.related = minute, 0
        before, self.related = self.related, self.related + len(text) + LINE_COST * text.count("\n")
        if self.related <= HEARSAY_LIMIT:
            self.say(text)
        elif before <= HEARSAY_LIMIT:
            self.say("The agent says or causes too much; the rest of this minute is left out.")

    def overhear(self) -> Steps:
        """What the agent, the mapping and `become` say to the administrator. Its mark tells it from our own words."""
        while True:
            yield self.heard
            said = os.read(self.heard, 65536).decode(errors="replace")
            self.relate("".join(f"| {line}\n" for line in said.split("\n") if line))

    def go(self, job: Steps) -> None:
        """Run it up to its next wait, or its end."""
        try:
            fd = next(job, None)
        except Exception as why:  # noqa: BLE001 -- the edge of a job: what befell one must not end all the others
            self.say(f"{type(why).__name__}: {why}")
            return
        if fd is not None:
            self.poll.register(fd, selectors.EVENT_READ, job)

    def tell(self, **message: object) -> None:
        with suppress(OSError):  # gone, or stuck: it is ended below, and the next one is told what runs
            self.link.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
            return
        if self.agent:
            self.agent.send(signal.SIGKILL)

    def serve(self) -> Steps:
        """One agent, from hello to its end. Its socket closes when its process does."""
        self.agent_at_s = time.monotonic() + PAUSE_S  # should it never come to life
        running = [name for name, child in self.children.items() if child.running]
        facts, streams = (
            {"endpoint_id": self.gate.recipient, "running": running},
            (subprocess.DEVNULL, *[self.agent_log] * 2),
        )
        self.agent, ear, self.link = employ(self.site, "agent", facts, self.lent, streams)
        agent, link = self.agent, self.link
        self.relate((yield from all_of(ear)).lstrip("+"))
        try:
            while True:
                yield link.fileno()
                self.obey(link)
        except (Malformed, OSError) as why:
            if why.args != (b"",):
                self.say(f"The agent sent what none of ours sends ({why!r:.100}); it is ended.")
        agent.send(signal.SIGKILL)
        status = yield from agent.end()
        self.say(f"The agent ended ({status}); user endpoints stay.")
        link.close()
        self.agent, self.agent_at_s = None, time.monotonic() + PAUSE_S

    def obey(self, link: socket.socket) -> None:
        """One request, whole and with its descriptors, or the end of whoever sent it."""
        body, fds, flags, _ = socket.recv_fds(link, 2 * LIMIT_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        asked = REQUEST.match(body)
        whole = len(fds) == 2 and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        if asked and whole and sealed(fds[0]) and stat.S_ISFIFO(os.fstat(fds[1]).st_mode):
            self.go(self.start(int(asked[1]), body[asked.end() :], fds))
            return
        for fd in fds:
            os.close(fd)
        raise Malformed(body)

    def start(self, number: int, body: bytes, fds: list[int]) -> Steps:
        """Become the mapped user. The first descriptor holds the secrets: it is passed on, never read."""
        name, child = "", Child(time.monotonic() + START_S)
        try:
            order = self.gate.check(body[32:], body[:32], time.time())
            self.admit(order)
            name, self.children[order.name] = order.name, child
            child.user, identity = (yield from self.map(child, order)) if self.site.privileged else self.owner_in(order)
            if not identity:
                raise No("IDENTITY_UNMAPPED", "Identity failed to map to a local user name.", f"{order.identities}")
            if sum(one.user == child.user for one in self.children.values()) > MOST_EACH:
                raise No("START_FAILED", f"You have {MOST_EACH} user endpoints here; that is the most.")
            yield from self.live(child, order, number, identity, fds)
        except Exception as no:  # noqa: BLE001 -- the edge of one user endpoint: whatever failed, the agent is told
            known = no if isinstance(no, No) else No("START_FAILED", UNTOLD)
            self.relate(f"No user endpoint {name}: {known.code} {no}\n"[:1000])
            self.tell(answer=number, code=known.code, public=known.public)
        finally:
            while fds:
                os.close(fds.pop())
            self.children.pop(name, None)

    def admit(self, order: Order) -> None:
        """Once, and only while there is room: a monitor without free descriptors would fail everybody."""
        if order.name in self.children:
            raise No("RUNNING", "It runs already.")
        if self.stop_asked:
            raise No("STALE", "The manager is stopping.")
        used = sum(1 if child.running else STARTING_FDS for child in self.children.values())
        if used + STARTING_FDS + SPARE_FDS > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            raise No("START_FAILED", "The site runs as many user endpoints as it can.", "raise `ulimit -n` for more")
        self.gate.remember(order, time.time())
        os.pwrite(self.last, b"%020d" % self.gate.last_s, 0)  # before it is obeyed: the next monitor must know

    def owner_in(self, order: Order) -> tuple[str, str]:
        """Without root: no account to choose, and only the owner's own identities."""
        return "", next((one["id"] for one in order.identities if one.get("id") in self.owners), "")

    def map(self, child: Child, order: Order) -> Generator[int, None, tuple[str, str]]:
        """Account and identity, both empty when there is none."""
        rules = self.site.open(self.site.settings[MAPPING_KEY])
        with rules, memory_file(json.dumps(order.identities).encode()) as asked, memory_file() as said:
            facts, streams = [self.gate.recipient, str(asked.fileno())], (rules.fileno(), said.fileno(), self.agent_log)
            child.process = Process(self.site, "mapping.py", facts, [asked.fileno()], streams)
            if status := (yield from child.process.end()):
                raise No("START_FAILED", UNTOLD, f"the identity mapping ended with {status}")
            user, _, identity = os.pread(said.fileno(), 4096, 0).decode().partition("\n")
        return user, identity

    def live(self, child: Child, order: Order, number: int, identity: str, fds: list[int]) -> Steps:
        """From `become` to the exit."""
        user = child.user or os.environ.get("USER", "its owner")
        mapped = json.dumps({"globus": {"id": identity}, "candidates": [[{identity: [user]}]]})
        module = ["muster.endpoint", "--name", order.name, "--payload-sha256", order.payload_sha256.hex()]
        with ExitStack() as held:
            given = [*self.site.files(held), self.lifeline[0]]
            module += [
                "--mapped",
                mapped,
                *(word for pair in zip(HANDED, map(str, given), strict=True) for word in pair),
            ]
            process, ear = become(self.site, user, "~", module, given, (fds[0], fds[1], fds[1]))
        child.process = process
        while fds:
            os.close(fds.pop())
        label = f"[({user}, {order.name}) muster-endpoint start {order.name} --die-with-parent]"
        self.say(f"Creating new user endpoint (pid: {process.pid}) {label}")
        told = yield from all_of(ear)
        if told == "+":  # and then silence: it is the user's process now
            child.running, child.until_s, who = True, NEVER, order.identities[0].get("id")
            self.say(f"Command process successfully forked for '{user}' (Globus effective identity: {who}).")
            self.tell(answer=number, code="STARTED")
        status = yield from process.end()
        if not child.running:
            kind, _, why = told.lstrip("+").partition(": ")
            if kind == "KeyError":
                raise No("IDENTITY_UNMAPPED", "Identity mapped to a local user name, but local user does not exist.")
            raise No("START_FAILED", why or f"It took more than {START_S} s to become {user}.")
        self.say(f"Command stopped {ENDS.get(status, f'with {status}')} ({process.pid}) {label}")
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
            self.agent.send(signal.SIGKILL)
        elif not self.children:
            self.tell(event="last")


def sealed(fd: int) -> bool:
    """A memory file that nobody can change any more."""
    with suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    return False


def all_of(ear: int) -> Generator[int, None, str]:
    """All that is said on a pipe, up to its end."""
    heard = b""
    while not (yield ear) and (more := os.read(ear, 1024)):
        heard += more
    os.close(ear)
    return heard.decode(errors="replace")
