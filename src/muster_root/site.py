"""A manager's directory: its settings, its files, and the programs that are started with them.

Root reads a few keys of config.yaml and its own root.json; all else it opens and hands on. It opens a file only if
nobody but root (without root: the owner) could have changed it or a directory above it, and follows no links.
A program is always a fresh process that changes itself, so none of our Python runs between fork and exec.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from io import FileIO
from itertools import accumulate
from subprocess import Popen

MAPPING_KEY = "identity_mapping_config_path"
FILES = {"user_config_template_path": "user_config_template.yaml", "user_config_schema_path": "user_config_schema.json"}
KEYS = {MAPPING_KEY: "", **FILES, "min_uid": "1000", "agent_user": "_muster"}
VALUE = re.compile(r"""(\w+)[ ]*:(?:[ ]+(?:'([^'\\]*)'|"([^"\\]*)"|([\w./+@-]+)))?[ ]*(?:[ ]\#.*)?""")
HERE = os.path.dirname(os.path.realpath(__file__))
READS = ":".join([sys.executable, os.path.realpath(sys.executable), os.path.join(os.path.dirname(HERE), "muster")])
GRACE_S, NEVER = 10, float("inf")
Streams = tuple[int, int, int]


class Unusable(Exception):
    """A file cannot be trusted or understood; says which, why, and what to run."""


def open_trusted(path: str, owner: int) -> FileIO:
    """For reading; FileNotFoundError when there is no such file."""
    places = list(accumulate(["/", *filter(None, path.split("/"))], os.path.join))
    for at in places:  # from the top: nobody else can change a place once all above it were looked at
        found = os.lstat(at)
        if stat.S_ISLNK(found.st_mode):
            raise Unusable(f"{at} cannot be opened without following links")
        shared = found.st_mode & 0o022 and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX)
        if found.st_uid not in (0, owner) or shared or stat.S_ISREG(found.st_mode) != (at == places[-1]):
            who = f"owner {found.st_uid}, mode {stat.filemode(found.st_mode)}"
            raise Unusable(f"{at} could be changed by others ({who}). Run: chown {owner} {at} && chmod go-w {at}")
    return FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))


def memory_file(content: bytes = b"") -> FileIO:
    """To be read from its beginning."""
    file = FileIO(os.memfd_create("muster"), "w+")
    os.pwrite(file.fileno(), content, 0)
    return file


def scan(text: str, file: str) -> dict[str, str]:
    """The values of our own keys. Root has no YAML parser: they must be plain, one to a line."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        named = [key for key in KEYS if re.search(rf"\b{key}\b", line.partition("#")[0])]
        found = VALUE.fullmatch(line)
        if named and (not found or found[1] != named[0] or found[1] in values):
            raise Unusable(f"{file}:{number}: write `{named[0]}: VALUE` once, on a line of its own, plain or in quotes")
        if named and found:
            values[found[1]] = found[2] or found[3] or found[4] or ""
    values = KEYS | {key: value for key, value in values.items() if value not in ("", "null")}
    if not values["min_uid"].isdigit():
        raise Unusable(f"{file}: min_uid must be a number such as 1000, not {values['min_uid']!r}")
    return values


class Process:
    """One of our programs, with nothing of this process but what is named; to be ended after `until_s`.

    Its number may belong to another process by now, its descriptor never does. It tells on a pipe how it goes.
    """

    user, running, until_s, grace_s = "", False, NEVER, GRACE_S

    def __init__(self, site: Site, program: str, facts: list[str], keep: list[int], streams: Streams) -> None:
        hear, tell = os.pipe()
        call, clean = [sys.executable, "-I", "-S", os.path.join(HERE, program), str(tell), *facts], {"LANG": "C.UTF-8"}
        env = clean if site.privileged else None  # without root the environment is the user's own
        with FileIO(tell, "w"):
            self.ear = FileIO(hear)
            self.opened = Popen(call, -1, None, *streams, pass_fds=[*keep, tell], cwd="/", env=env)
        self.pidfd = os.pidfd_open(self.opened.pid)

    def send(self, number: int) -> None:
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)

    def told(self) -> Generator[int, None, str]:
        """All that it tells, up to the end."""
        heard = b""
        with self.ear:
            while not (yield self.ear.fileno()) and (more := self.ear.read(1024)):
                heard += more
        return heard.decode(errors="replace")

    def end(self) -> Generator[int, None, int]:
        """Its status, once there is one. What it left in its process group ends with it."""
        yield self.pidfd
        with suppress(OSError):
            os.killpg(self.opened.pid, signal.SIGKILL)  # before the wait, which gives the number away
        os.close(self.pidfd)
        self.pidfd = -1
        return self.opened.wait()


class Site:
    """One manager's directory, as its owner sees it."""

    def __init__(self, directory: str) -> None:
        self.directory, self.owner = os.path.realpath(directory), os.getuid()
        self.name, self.privileged = os.path.basename(self.directory), self.owner == 0
        self.settings = scan(self.read("config.yaml"), self.path("config.yaml"))
        template, schema = (self.settings[key] for key in FILES)
        self.names = (template, f"{template}.j2"), (schema,), ("user_environment.yaml",), ("config.yaml",)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def open(self, name: str) -> FileIO:
        return open_trusted(self.path(name), self.owner)

    def read(self, name: str) -> str:
        with self.open(name) as file:
            return file.readall().decode()

    def files(self, until: ExitStack) -> list[int]:
        """Template, schema, environment, config, opened; what the site does not have is an empty memory file."""
        found = [next((name for name in names if os.path.exists(self.path(name))), "") for names in self.names]
        return [until.enter_context(self.open(name) if name else memory_file()).fileno() for name in found]

    def record(self) -> dict[str, str]:
        """Endpoint id, seal key and the owner's identities, from the last registration."""
        return dict(json.loads(self.read("root.json")))

    def become(self, user: str, place: str, module: list[str], keep: list[int], streams: Streams) -> Process:
        """A module of `muster`, as `user`; it tells a + and ends telling, or what went wrong."""
        agent = os.stat(self.path("agent")).st_uid
        whom = [self.settings["min_uid"], f"0,{agent}"] if place == "~" and self.privileged else ["1", "0"]
        facts = [*whom, ",".join(map(str, keep)), READS, place, user if self.privileged else ""]
        return Process(self, "become.py", [*facts, sys.executable, "-I", "-m", *module], keep, streams)

    def employ(
        self, module: str, facts: Mapping[str, object], lent: list[int], streams: Streams
    ) -> tuple[Process, socket.socket]:
        """The agent, or the registrar: its account, and all it needs of the site as descriptors."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as held:
            hello = {"name": self.name, "privileged": self.privileged, **facts}
            socket.send_fds(ours, [json.dumps(hello).encode()], [*lent, *self.files(held)])
            call = [f"muster.manager.{module}", "--link-fd", str(theirs.fileno())]
            return self.become(self.settings["agent_user"], "/", call, [theirs.fileno()], streams), ours
