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
from muster_root.programs import Process, become, employ, spawn
from muster_root.settings import MAPPING_KEY, Site, open_trusted

HANDED = ("--template-fd", "--schema-fd", "--environment-fd", "--manager-config-fd", "--lifeline-fd")
START_S, GRACE_S, LONGEST_PAUSE_S, NEVER = 30, 10, 60, float("inf")
REQUEST = re.compile(rb"start ([0-9]{1,9})\n")
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
STARTING_FDS, SPARE_FDS, MOST_EACH = 6, 64, 100  # descriptors of a start, and for all else; user endpoints of one account
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
        self.agent_at_s, self.pause_s, self.stop_asked, self.stop_at_s = 0.0, 0.5, False, 0.0
        self.lifeline, (self.heard, self.agent_log) = os.pipe(), os.pipe()
        self.minute, self.hearsay, self.marks = 0, 0, ""
        self.last = os.open(site.path("last_order"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        record, last_s = site.record(), int(os.pread(self.last, 20, 0) or 0)
        self.gate = Gate(record["endpoint_id"], bytes.fromhex(record["seal_key"]), time.time(), last_s)
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

    def relate(self, text: str) -> None:
        """Into the log too, but only so much a minute: what the agent can cause must not fill root's disk."""
        if self.minute != (minute := int(time.monotonic() / 60)):
            self.minute, self.hearsay = minute, 0
        before, self.hearsay = self.hearsay, self.hearsay + len(text) + LINE_COST * text.count("\n")
        if self.hearsay <= HEARSAY_LIMIT:
            self.say(text)
        elif before <= HEARSAY_LIMIT:
            self.say("The agent says or causes too much; the rest of this minute is left out.")

    def overhear(self, ear: int) -> Steps:
        """What the agent, the mapping and `become` have to say to the administrator; it cannot pass for our own."""
        while True:
            yield ear
            said = os.read(ear, 65536).decode(errors="replace").lstrip("+")
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
            self.agent.kill()

    def serve(self) -> Steps:
        """One agent, from hello to its end. Its socket closes when its process does."""
        since_s, self.pause_s = time.monotonic(), min(LONGEST_PAUSE_S, self.pause_s * 2)
        self.agent_at_s, self.marks = since_s + self.pause_s, self.site.marks()
        running = [name for name, child in self.children.items() if child.running]
        facts = {"endpoint_id": self.gate.recipient, "running": running}
        streams = (subprocess.DEVNULL, self.agent_log, self.agent_log)
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
        self.say(f"The agent ended ({bury(agent)}); user endpoints stay.")
        os.close(pidfd)
        link.close()
        if time.monotonic() - since_s > LONGEST_PAUSE_S:
            self.pause_s = 0.5
        self.agent, self.agent_at_s = None, time.monotonic() + self.pause_s

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
            found = (yield from self.map(child, order)) if self.site.privileged else ("", self.owner_in(order))
            child.user, identity = found
            if not identity:
                raise No("IDENTITY_UNMAPPED", "Identity failed to map to a local user name.", f"{order.identities}")
            if sum(one.user == child.user for one in self.children.values()) > MOST_EACH:
                raise No("START_FAILED", f"You have {MOST_EACH} user endpoints here; that is the most.")
            yield from self.live(child, order, number, identity, fds)
        except Exception as no:  # noqa: BLE001 -- the edge of one user endpoint: whatever failed, the agent is told
            known = no if isinstance(no, No) else No("START_FAILED", UNTOLD)
            self.relate(f"No user endpoint {name}: {known.code} {no}"[:1000])
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

    def owner_in(self, order: Order) -> str:
        return next((one["id"] for one in order.identities if one.get("id") in self.owners), "")

    def map(self, child: Child, order: Order) -> Generator[int, None, tuple[str, str]]:
        """Account and identity, both empty when there is none."""
        with ExitStack() as held:
            rules = open_trusted(self.site.path(self.site.settings[MAPPING_KEY]), self.site.owner)
            held.callback(os.close, rules)
            identities, said = os.memfd_create("identities"), os.memfd_create("said")
            held.callback(os.close, identities)
            held.callback(os.close, said)
            os.pwrite(identities, json.dumps(order.identities).encode(), 0)
            facts, streams = [self.gate.recipient, str(identities)], (rules, said, self.agent_log)
            process = spawn(self.site, "mapping.py", facts, [identities], streams)
            child.pidfd = os.pidfd_open(process.pid)
            held.callback(os.close, child.pidfd)
            yield child.pidfd
            if status := process.wait():
                raise No("START_FAILED", UNTOLD, f"the identity mapping ended with {status}")
            user, _, identity = os.pread(said, 4096, 0).decode().partition("\n")
            return user, identity

    def live(self, child: Child, order: Order, number: int, identity: str, fds: list[int]) -> Steps:
        """From `become` to the exit."""
        user = child.user or os.environ.get("USER", "its owner")
        mapped = json.dumps({"globus": {"id": identity}, "candidates": [[{identity: [user]}]]})
        module = ["muster.endpoint", "--name", order.name, "--payload-sha256", order.payload_sha256.hex()]
        ear, tell = os.pipe()
        with ExitStack() as held:
            held.callback(os.close, tell)
            given = [*self.site.files(held), self.lifeline[0]]
            module += ["--mapped", mapped, *(word for pair in zip(HANDED, map(str, given), strict=True) for word in pair)]
            process = become(self.site, user, "~", module, given, (fds[0], fds[1], fds[1]), tell)
            child.pidfd = os.pidfd_open(process.pid)
        while fds:
            os.close(fds.pop())
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
        os.close(child.pidfd)
        status = bury(process)
        if not child.running:
            kind, _, why = heard.decode(errors="replace").lstrip("+").partition(": ")
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
        elif self.agent and self.marks != (marks := self.site.marks()):
            self.say("The site's files changed: another agent registers them.")
            self.marks, self.pause_s = marks, 0.25
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


def bury(process: Process) -> int:
    """The status of one that ended; what it left in its process group ends now, while the number is still its own."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
