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
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from muster_root.order import LIMIT_BYTES, Gate, No, Order
from muster_root.settings import MAPPING_KEY, Site, Unusable, open_trusted

HERE = os.path.dirname(os.path.realpath(__file__))
READS = ":".join([sys.executable, os.path.realpath(sys.executable), os.path.join(os.path.dirname(HERE), "muster")])
HANDED = ("--template-fd", "--schema-fd", "--environment-fd", "--manager-config-fd", "--lifeline-fd")
START_S, GRACE_S, LONGEST_PAUSE_S = 30, 10, 60
REQUEST = re.compile(rb"(start|stop|list) ([0-9]{1,9})\n")
SEALED = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
UNTOLD = "its administrator finds the cause in the log."
Process = subprocess.Popen[bytes]


class Malformed(Exception):
    """No request that our agent would make: it is broken, or no longer ours."""


@dataclass(eq=False)
class Child:
    """One user endpoint, from its order to its exit."""

    order: Order
    request: int
    fds: list[int]  # payload and early log, until they are handed on
    until_s: float  # a start that takes longer is ended
    user: str = ""
    heard: bytes = b""  # what `become` told; a lone "+" when it succeeded
    ear: int = -1
    pidfd: int = -1

    def __str__(self) -> str:
        return f"[({self.user}, {self.order.name}) muster-endpoint start {self.order.name} --die-with-parent]"


class Monitor:
    """One manager at work. `run` returns when it was told to stop and everything has ended."""

    def __init__(self, site: Site, agent_dir: int, environment: int, log: int, *, console: bool) -> None:
        self.site, self.agent_dir, self.environment, self.log, self.console = site, agent_dir, environment, log, console
        self.poll, self.children = selectors.DefaultSelector(), dict[str, Child]()
        self.agent: Process | None = None
        self.agent_at_s, self.pause_s, self.stop_asked, self.stop_at_s = 0.0, 0.5, False, 0.0
        self.lifeline, (heard, self.agent_log) = os.pipe(), os.pipe()
        self.watch(heard, lambda: self.say(os.read(heard, 65536).decode(errors="replace")))
        self.barred = f"0,{os.fstat(agent_dir).st_uid}"  # nobody becomes root, or the agent

    def say(self, text: str) -> None:
        """Into the log: nothing that a terminal would obey, and no more than a stated length of it."""
        lines = [re.sub(r"[^ -~\u00a1-\ud7ff]", "?", line)[:2000] for line in text.splitlines()]
        entry = "".join(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in lines if line).encode()
        for place in [self.log, 2] if self.console else [self.log]:
            with suppress(OSError):  # a full disk or a closed terminal stops nobody's work
                os.write(place, entry)

    def watch(self, fd: int, act: Callable[[], None]) -> None:
        self.poll.register(fd, selectors.EVENT_READ, act)

    def unwatch(self, fd: int) -> None:
        self.poll.unregister(fd)
        os.close(fd)

    def watch_end(self, process: Process, then: Callable[[int], None]) -> int:
        """Call `then` with the exit status; the descriptor stands for this very process, whatever its number."""
        pidfd = os.pidfd_open(process.pid)

        def ended() -> None:
            self.unwatch(pidfd)
            then(process.wait())

        self.watch(pidfd, ended)
        return pidfd

    # Starting programs: a fresh process that changes itself, so none of our Python runs between fork and exec.

    def spawn(self, program: str, facts: list[str], keep: list[int], *streams: int) -> Process:
        call = [sys.executable, "-I", "-S", os.path.join(HERE, program), *facts]
        env = {"LANG": "C.UTF-8"} if self.site.privileged else None
        stdin, out, err = streams
        return subprocess.Popen(call, stdin=stdin, stdout=out, stderr=err, pass_fds=keep, cwd="/", env=env)

    def become(self, user: str, place: str, module: list[str], keep: list[int], *streams: int) -> tuple[Process, int]:
        """Start a module of `muster` as `user`; the second value tells what went wrong."""
        ear, tell = os.pipe()
        lowest, barred = (self.site.settings["min_uid"], self.barred) if place == "~" else ("1", "0")
        whom = [lowest, barred] if self.site.privileged else ["1", "0"]
        facts = [str(tell), *whom, ",".join(map(str, keep)), READS, place, user if self.site.privileged else ""]
        try:
            process = self.spawn("become.py", [*facts, sys.executable, "-I", "-m", *module], [*keep, tell], *streams)
        finally:
            os.close(tell)
        return process, ear

    def employ(self, module: str, facts: Mapping[str, object], *streams: int) -> tuple[Process, int, socket.socket]:
        """The agent, or the registrar: its account, and all it needs of the site as descriptors."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command, files = [f"muster.manager.{module}", "--link-fd", str(theirs.fileno())], self.site.files()
        hello = {"event": "hello", "name": self.site.name, "privileged": self.site.privileged, **facts}
        socket.send_fds(ours, [json.dumps(hello).encode()], [self.agent_dir, self.environment, *files])
        process, ear = self.become(self.site.settings["agent_user"], "/", command, [theirs.fileno()], *streams)
        theirs.close()
        for fd in files:
            os.close(fd)
        return process, ear, ours

    # The agent.

    def register(self, wanted_id: str) -> None:
        """Have the registrar log in and register, on the terminal; what it brings is all that root knows of a service."""
        record = self.site.record()
        facts = {"endpoint_id": wanted_id or record.get("endpoint_id", ""), "need_key": "seal_key" not in record}
        process, ear, link = self.employ("registrar", facts, 0, 1, 2)
        if process.wait() != 0:
            sys.exit(os.read(ear, 1024).decode(errors="replace").lstrip("+") or process.returncode)
        answer = re.fullmatch(rb"([0-9a-f-]{36}) ([0-9a-f]{64})?((?: [0-9a-f-]{36})+)", link.recv(65536))
        if not answer:
            sys.exit("The registrar brought no usable answer.")
        endpoint, key, owners = ((part or b"").decode() for part in answer.groups())
        record |= {"endpoint_id": endpoint, "owners": owners} | ({"seal_key": key} if key else {})
        self.site.write_record(record)
        self.owners, self.gate = owners.split(), Gate(endpoint, bytes.fromhex(record["seal_key"]), time.time())
        os.close(ear)
        link.close()

    def start_agent(self) -> None:
        running = [name for name, child in self.children.items() if child.heard == b"+"]
        facts = {"endpoint_id": self.gate.recipient, "running": running}
        self.marks, self.agent_since_s = self.site.marks(), time.monotonic()
        self.agent, ear, self.link = self.employ("agent", facts, subprocess.DEVNULL, self.agent_log, self.agent_log)
        self.watch(ear, partial(self.overhear, ear))
        self.watch(self.link.fileno(), self.serve)
        self.watch_end(self.agent, self.agent_ended)

    def overhear(self, ear: int) -> None:
        told = os.read(ear, 1024)
        self.say(told.decode(errors="replace").lstrip("+"))
        if not told:
            self.unwatch(ear)

    def agent_ended(self, status: int) -> None:
        self.end_agent(signal.SIGKILL)
        lived_s = time.monotonic() - self.agent_since_s
        self.pause_s = 0.5 if lived_s > LONGEST_PAUSE_S else min(LONGEST_PAUSE_S, self.pause_s * 2)
        self.agent, self.agent_at_s = None, time.monotonic() + self.pause_s
        self.say(f"The agent ended ({status}); the user endpoints stay.")

    def tell(self, **message: object) -> None:
        try:
            self.link.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
        except OSError:  # it does not read, or it is gone: the next one is told what runs
            self.end_agent(signal.SIGKILL)

    def end_agent(self, number: int) -> None:
        if self.agent:
            self.agent.send_signal(number)
        if number == signal.SIGKILL and self.link.fileno() >= 0:  # nothing more is heard from it
            self.unwatch(self.link.detach())

    def serve(self) -> None:
        """One request of the agent."""
        number, fds = 0, list[int]()
        try:
            body, fds, flags, _ = socket.recv_fds(self.link, 2 * LIMIT_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
            asked = REQUEST.match(body)
            if asked is None or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise Malformed
            number = int(asked[2])
            VERBS[asked[1]](self, number, body[asked.end() :], fds)
        except (Malformed, ConnectionError):
            self.say("The agent left, or sent what none of ours sends: it is ended.")
            self.end_agent(signal.SIGKILL)
        except (No, Unusable, OSError) as no:
            self.refuse(number, no)
        finally:
            for fd in fds:
                os.close(fd)

    def refuse(self, number: int, no: Exception) -> None:
        known = no if isinstance(no, No) else No("START_FAILED", f"The site cannot start user endpoints now; {UNTOLD}")
        self.say(f"Refused: {no}")
        self.tell(answer=number, code=known.code, public=known.public)

    # The verbs.

    def start(self, number: int, body: bytes, fds: list[int]) -> None:
        """Become the mapped user. The first descriptor holds the secrets: it is passed on, never read."""
        if len(fds) != 2 or not stat.S_ISFIFO(os.fstat(fds[1]).st_mode) or not sealed(fds[0]):
            raise Malformed
        now_s = time.time()
        order = self.gate.check(body[32:], body[:32], now_s)
        if order.name in self.children:
            self.tell(answer=number, code="RUNNING")
            return
        if self.stop_asked:
            raise No("STALE", "The manager is stopping.")
        self.gate.remember(order, now_s)
        child = Child(order, number, [os.dup(fd) for fd in fds], time.monotonic() + START_S)
        self.children[order.name] = child
        try:
            if self.site.privileged:
                self.map(child)
            else:
                self.start_as(child, "", next((one["id"] for one in order.identities if one["id"] in self.owners), ""))
        except (No, Unusable, OSError) as no:
            self.fail(child, no)

    def stop(self, _number: int, body: bytes, _fds: list[int]) -> None:
        child = self.children.get(body.decode(errors="replace"))
        if child:
            signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)

    def list(self, number: int, _body: bytes, _fds: list[int]) -> None:
        self.tell(answer=number, running=[name for name, child in self.children.items() if child.heard == b"+"])

    # The stages of a start.

    def map(self, child: Child) -> None:
        rules = open_trusted(self.site.path(self.site.settings[MAPPING_KEY]), self.site.owner)
        identities, said = os.memfd_create("identities"), os.memfd_create("said")
        os.write(identities, json.dumps(child.order.identities).encode())
        os.lseek(identities, 0, os.SEEK_SET)
        facts = [self.gate.recipient, str(identities)]
        process = self.spawn("mapping.py", facts, [identities], rules, said, self.agent_log)
        child.pidfd = self.watch_end(process, partial(self.mapped, child, said))
        os.close(rules)
        os.close(identities)

    def mapped(self, child: Child, said: int, status: int) -> None:
        user, _, identity = os.pread(said, 4096, 0).decode(errors="replace").partition("\n")
        os.close(said)
        try:
            if status != 0:
                raise Unusable(f"the identity mapping ended with {status}")
            self.start_as(child, user, identity)
        except (No, Unusable, OSError) as no:
            self.fail(child, no)

    def start_as(self, child: Child, user: str, identity: str) -> None:
        order, child.user = child.order, user or os.environ.get("USER", "its owner")
        if not identity:
            raise No("IDENTITY_UNMAPPED", "Identity failed to map to a local user name.", f"{order.identities!r:.500}")
        files = self.site.files()
        handed = [text for pair in zip(HANDED, [*files, self.lifeline[0]], strict=True) for text in map(str, pair)]
        mapped = json.dumps({"globus": {"id": identity}, "candidates": [[{identity: [child.user]}]]})
        facts = ["--name", order.name, "--payload-sha256", order.payload_sha256.hex(), "--mapped", mapped]
        payload, log = child.fds
        process, child.ear = self.become(
            user, "~", ["muster.endpoint", *facts, *handed], [*files, self.lifeline[0]], payload, log, log
        )
        child.pidfd = self.watch_end(process, partial(self.ended, child, process.pid))
        self.watch(child.ear, partial(self.told, child))
        self.say(f"Creating new user endpoint (pid: {process.pid}) {child}")
        for fd in (*files, *child.fds):
            os.close(fd)
        child.fds = []

    def told(self, child: Child) -> None:
        """Silence after a "+" means that it is the user's process now; any other silence, that it died before."""
        told = os.read(child.ear, 1024)
        child.heard += told
        if told:
            return
        self.unwatch(child.ear)
        child.ear = -1
        if child.heard == b"+":
            child.until_s = float("inf")
            identity = child.order.identities[0].get("id")
            self.say(f"Command process successfully forked for '{child.user}' (Globus effective identity: {identity}).")
            self.tell(answer=child.request, code="STARTED")

    def ended(self, child: Child, pid: int, status: int) -> None:
        while child.ear >= 0:
            self.told(child)
        if child.heard != b"+":
            kind, _, why = child.heard.decode(errors="replace").lstrip("+").partition(": ")
            missing = No("IDENTITY_UNMAPPED", "Identity mapped to a local user name, but local user does not exist.")
            self.fail(child, missing if kind == "KeyError" else No("START_FAILED", why or f"It took over {START_S} s."))
            return
        del self.children[child.order.name]
        how = "normally" if status == 0 else f"with {signal.Signals(-status).name if status < 0 else status}"
        self.say(f"Command stopped {how} ({pid}) {child}")
        self.tell(event="exited", name=child.order.name, status=status)

    def fail(self, child: Child, no: Exception) -> None:
        for fd in child.fds:
            os.close(fd)
        del self.children[child.order.name]
        self.say(f"Unable to start user endpoint process for {child.user or '?'} {child}")
        self.refuse(child.request, no)

    # The loop.

    def run(self, *, clock: bool) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: setattr(self, "stop_asked", True))
        while self.children or self.agent or not self.stop_asked:
            for key, _ in self.poll.select(timeout=0.5):
                if self.poll.get_map().get(key.fd) is key:  # not closed by what came before it in this round
                    key.data()
            self.tick(time.monotonic())
            if clock:
                with suppress(OSError):
                    os.write(1, f"\r----> {time.ctime()}".encode())

    def tick(self, now_s: float) -> None:
        for child in self.children.values():
            if now_s > child.until_s:
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        if self.stop_asked:
            self.wind_up(now_s)
        elif not self.agent and now_s >= self.agent_at_s:
            self.start_agent()
        elif self.agent and self.marks != self.site.marks():
            self.say("The site's files changed: a new agent registers them.")
            self.marks, self.pause_s = self.site.marks(), 0
            self.end_agent(signal.SIGTERM)

    def wind_up(self, now_s: float) -> None:
        """Children first, so that the agent can still tell the service how they ended."""
        if not self.stop_at_s:
            self.stop_at_s = now_s
            self.tell(event="stopping")
            os.close(self.lifeline[1])
            for child in self.children.values():
                signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
                child.until_s = now_s + GRACE_S
        if not self.children and self.agent:
            self.tell(event="last")
        if now_s > self.stop_at_s + 2 * GRACE_S:
            self.end_agent(signal.SIGKILL)


def sealed(fd: int) -> bool:
    """A memory file that nobody can change any more."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALED == SEALED
    except OSError:
        return False


VERBS = {b"start": Monitor.start, b"stop": Monitor.stop, b"list": Monitor.list}
