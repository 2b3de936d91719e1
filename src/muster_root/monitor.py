"""The monitor, root's part of a manager. `muster-endpoint start` turns into it, as root or as the manager's owner.

It answers the one request that the agent may make over one socket, and watches its children. It must never touch the
network, name services or a home directory, and reads nothing from outside but an order whose seal it found good.
"""

from __future__ import annotations

import json
import os
import re
import resource
import selectors
import signal
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, suppress

from muster_root.order import LIMIT_BYTES, Gate, No, Order
from muster_root.site import GRACE_S, MAPPING_KEY, NEVER, Process, Site, memory_file

HANDED = ("--template-fd", "--schema-fd", "--environment-fd", "--manager-config-fd", "--lifeline-fd")
START_S, PAUSE_S, SPARE_FDS, MOST_EACH = 30, 3, 64, 200  # the last: user endpoints of one account
LOG_RATE, LOG_SAVED_S = 4096, 120  # characters a second that the agent can cause; who was silent may say more at once
REQUEST = re.compile(rb"start ([0-9]{1,9})\n")
UNTOLD = "The site cannot start user endpoints now; its administrator finds the cause in the log."
ENDS = {0: "normally", **{-one: f"with {one.name}" for one in signal.Signals}}
Steps = Generator[int, None, None]  # a job: each `yield fd` waits until that descriptor can be read


class Monitor:
    """One manager at work. `run` returns when it was told to stop and everything has ended."""

    def __init__(self, site: Site, lent: list[int], log: int, *, console: bool) -> None:
        self.site, self.lent, self.places = site, lent, [log, 2] if console else [log]
        self.poll, self.children, self.link = selectors.DefaultSelector(), dict[str, Process](), socket.socket()
        self.agent: Process | None = None
        self.agent_at_s, self.paid_s, self.stop_asked = 0.0, 0.0, False
        self.lifeline, (self.heard, agent_log) = os.pipe(), os.pipe()
        self.quiet = (os.open(os.devnull, os.O_RDONLY), agent_log, agent_log)
        self.last = os.open(site.path("last_order"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        record, last_s = site.record(), int(os.pread(self.last, 20, 0) or 0)
        self.gate = Gate(record["endpoint_id"], bytes.fromhex(record["seal_key"]), time.time(), last_s)
        self.owners = record["owners"].split()
        self.go(self.overhear())

    def say(self, text: str) -> None:
        """Into the log: nothing that a terminal would obey, and no more than a stated length of it."""
        for line in filter(None, text.split("\n")):
            shown = "".join(char if char.isprintable() else "?" for char in line[:2000])
            for place in self.places:
                with suppress(OSError):  # a full disk or a closed terminal stops nobody's work
                    os.write(place, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shown}\n".encode())

    def relate(self, text: str) -> None:
        """Into the log too, at a bounded rate: what the agent can cause must not fill root's disk."""
        self.paid_s = max(self.paid_s, time.monotonic() - LOG_SAVED_S)
        if self.paid_s < time.monotonic():
            self.paid_s += len(text) / LOG_RATE
            self.say(text)

    def overhear(self) -> Steps:
        """What the agent, the mapping and `become` say to the administrator. Its mark tells it from our own words."""
        while True:
            yield self.heard
            said = os.read(self.heard, 65536).decode(errors="replace")
            self.relate("".join(f"| {line}\n" for line in said.split("\n") if line))

    def go(self, job: Steps) -> None:
        """Run it up to its next wait, or its end."""
        try:
            for fd in job:
                self.poll.register(fd, selectors.EVENT_READ, job)
                break
        except Exception as why:  # noqa: BLE001 -- the edge of a job: what befell one must not end all the others
            self.say(f"{type(why).__name__}: {why}")

    def tell(self, **message: object) -> None:
        try:
            self.link.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
        except OSError:  # gone, or stuck: it is ended, and the next one is told what runs
            if self.agent:
                self.agent.send(signal.SIGKILL)

    def serve(self) -> Steps:
        """One agent, from hello to its end. Its socket closes when its process does."""
        self.agent_at_s = time.monotonic() + PAUSE_S  # of the next one, however short this one lives
        running = [name for name, child in self.children.items() if child.running]
        facts = {"endpoint_id": self.gate.recipient, "running": running}
        self.agent, self.link = agent, link = self.site.employ("agent", facts, self.lent, self.quiet)
        agent.grace_s = 2 * GRACE_S  # longer than our children: it has to tell the service how they ended
        self.relate((yield from agent.told()).lstrip("+"))
        with suppress(OSError):  # whatever is wrong with the line is wrong with the agent
            while not (yield link.fileno()) and self.obey(link):
                pass
        agent.send(signal.SIGKILL)
        status = yield from agent.end()
        self.say(f"The agent ended ({status}); user endpoints stay.")
        link.close()
        self.agent = None

    def obey(self, link: socket.socket) -> bool:
        """One request, whole and with its descriptors. False: our agent is gone, broken, or no longer ours."""
        body, fds, flags, _ = socket.recv_fds(link, 2 * LIMIT_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        asked = REQUEST.match(body)
        if asked and len(fds) == 2 and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            self.go(self.start(int(asked[1]), body[asked.end() :], fds))
            return True
        if body:
            self.say(f"The agent sent what none of ours sends ({body[:80]!r}); it is ended.")
        close(fds)
        return False

    def start(self, number: int, body: bytes, fds: list[int]) -> Steps:
        """Become the mapped user. The first descriptor holds the secrets: it is passed on, never read."""
        name = ""
        try:
            order = self.gate.check(body[32:], body[:32], time.time())
            if order.name in self.children:
                raise No("RUNNING", "It runs already.")
            if len(os.listdir("/proc/self/fd")) > resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS:
                raise No("START_FAILED", "The site runs as many user endpoints as it can.", "`ulimit -n` is reached")
            self.gate.remember(order, time.time())
            os.pwrite(self.last, b"%020d" % self.gate.last_s, 0)  # before it is obeyed: the next monitor must know
            name = order.name
            user, identity = yield from self.map(order)
            if self.stop_asked:  # asked here, as nothing that starts later would be told to end
                raise No("STALE", "The manager is stopping.")
            if not identity:
                raise No("IDENTITY_UNMAPPED", "Identity failed to map to a local user name.", f"{order.identities}")
            if sum(child.user == user for child in self.children.values()) >= MOST_EACH:
                raise No("START_FAILED", f"You have {MOST_EACH} user endpoints here; that is the most.")
            yield from self.live(order, number, user, identity, fds)
        except Exception as no:  # noqa: BLE001 -- the edge of one user endpoint: whatever failed, the agent is told
            known = no if isinstance(no, No) else No("START_FAILED", UNTOLD)
            self.relate(f"No user endpoint {name}: {known.code} {no}\n"[:1000])
            self.tell(answer=number, code="STALE" if self.stop_asked else known.code, public=known.public)
        finally:
            close(fds)
            self.children.pop(name, None)

    def map(self, order: Order) -> Generator[int, None, tuple[str, str]]:
        """Account and identity, both empty when there is none."""
        if not self.site.privileged:  # no account to choose, and only the owner's own identities
            return "", next((one["id"] for one in order.identities if one.get("id") in self.owners), "")
        rules = self.site.open(self.site.settings[MAPPING_KEY])
        with rules, memory_file(json.dumps(order.identities).encode()) as asked:
            facts, streams = [self.gate.recipient, str(asked.fileno())], (rules.fileno(), *self.quiet[1:])
            process = Process(self.site, "mapping.py", facts, [asked.fileno()], streams)
        process.until_s, self.children[order.name] = time.monotonic() + START_S, process
        user, _, identity = (yield from process.told()).partition("\n")
        if status := (yield from process.end()):
            raise No("START_FAILED", UNTOLD, f"the identity mapping ended with {status}")
        return user, identity

    def live(self, order: Order, number: int, user: str, identity: str, fds: list[int]) -> Steps:
        """From `become` to the exit."""
        who = user or os.environ.get("USER", "its owner")
        mapped = json.dumps({"globus": {"id": identity}, "candidates": [[{identity: [who]}]]})
        module = ["muster.endpoint", "--name", order.name, "--payload-sha256", order.payload_sha256.hex()]
        with ExitStack() as held:
            given = [*self.site.files(held), self.lifeline[0]]
            handed = [word for pair in zip(HANDED, map(str, given), strict=True) for word in pair]
            module += ["--mapped", mapped, *handed]
            child = self.site.become(user, "~", module, given, (fds[0], fds[1], fds[1]))
        close(fds)
        child.user, child.until_s, self.children[order.name] = user, time.monotonic() + START_S, child
        pid, label = child.opened.pid, f"[({who}, {order.name}) muster-endpoint start {order.name} --die-with-parent]"
        self.say(f"Creating new user endpoint (pid: {pid}) {label}")
        told = yield from child.told()
        if told == "+":  # and then silence: it is the user's process now
            child.running, child.until_s, first = True, NEVER, order.identities[0].get("id")
            self.say(f"Command process successfully forked for '{who}' (Globus effective identity: {first}).")
            self.tell(answer=number, code="STARTED")
        status = yield from child.end()
        if not child.running:
            kind, _, why = told.lstrip("+").partition(": ")
            if kind == "KeyError":
                raise No("IDENTITY_UNMAPPED", "Identity mapped to a local user name, but local user does not exist.")
            raise No("START_FAILED", why or f"It took more than {START_S} s to become {who}.")
        self.say(f"Command stopped {ENDS.get(status, f'with {status}')} ({pid}) {label}")
        self.tell(event="exited", name=order.name, status=status)

    def run(self, *, clock: bool) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: setattr(self, "stop_asked", True))
        while not self.stop_asked:
            if not self.agent and time.monotonic() >= self.agent_at_s:
                self.go(self.serve())
            self.turn(clock=clock)
        self.tell(event="stopping")
        os.close(self.lifeline[1])
        for child in self.children.values():
            child.send(signal.SIGTERM)
        for process in self.processes():
            process.until_s = time.monotonic() + process.grace_s
        while self.processes():
            self.turn(clock=clock)

    def processes(self) -> list[Process]:
        return [*filter(None, [self.agent]), *self.children.values()]

    def turn(self, *, clock: bool) -> None:
        for key, _ in self.poll.select(timeout=0.5):
            self.poll.unregister(key.fd)
            self.go(key.data)
        for process in self.processes():
            if time.monotonic() > process.until_s:
                process.send(signal.SIGKILL)
        if clock:
            with suppress(OSError):
                os.write(1, f"\r----> {time.ctime()}".encode())


def close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
