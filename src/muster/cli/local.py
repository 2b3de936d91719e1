"""The endpoints of this account on this machine: their directories, and which of them run."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from muster.errors import Conflict, Invalid, NotFound

CONFIG = "config.yaml"
AGENT = "agent"  # the agent's own part, in a directory that belongs to its account
_LOCK = "lock"
_QUIET_S = 0.8  # then whoever waits is told for what
_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux
_NAME = re.compile(r"[^\s./\\'\"\0][^\s/\\'\"\0]{0,127}")
_ENGINE = re.compile(r"^(engine|'engine'|\"engine\")[ \t]*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """One directory below MUSTER_HOME, as `configure` makes it."""

    directory: Path

    @classmethod
    def named(cls, name: str) -> LocalEndpoint:
        """Invalid when nothing may be called so."""
        if not _NAME.fullmatch(name):
            raise Invalid(
                why=f"{name!r} cannot be the name of an endpoint: 1 to 128 characters, "
                "no blanks, quotes or slashes, no dot in front"
            )
        return cls(_home() / name)

    @classmethod
    def existing(cls, name: str) -> LocalEndpoint:
        """NotFound when there is none; says how to make it."""
        endpoint = cls.named(name)
        if not (endpoint.directory / CONFIG).is_file():
            raise NotFound.told(
                f"There is no endpoint named <{name}> here ({endpoint.directory}). "
                f"Create it with: muster-endpoint configure {name}"
            )
        return endpoint

    @classmethod
    def every(cls) -> list[LocalEndpoint]:
        """Those that were configured; the directories of user endpoints are none."""
        home = _home()
        found = sorted(home.iterdir()) if home.is_dir() else []
        return [cls(path) for path in found if (path / CONFIG).is_file()]

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def single_user(self) -> bool:
        """Decided by content: whoever has an engine runs tasks itself."""
        return bool(_ENGINE.search((self.directory / CONFIG).read_text(errors="replace")))

    @property
    def endpoint_id(self) -> str | None:
        for file in ("root.json", "endpoint.json"):
            try:
                return str(json.loads((self.directory / file).read_bytes())["endpoint_id"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    @property
    def status(self) -> str:
        """Initialized: never started."""
        if self.holder() is not None:
            return "Running"
        return "Initialized" if self.endpoint_id is None else "Stopped"

    def lock(self) -> int:
        """Ours until this process ends, whatever it execs meanwhile; Conflict when somebody else has it."""
        file = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.set_inheritable(file, True)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise Conflict(why=f"Endpoint <{self.name}> is already running (process {self.holder()}).") from None
        return file

    def holder(self) -> int | None:
        """The process that runs it, as the kernel knows: there is no file with a number that could be old."""
        try:
            file = os.open(self.directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        finally:
            os.close(file)
        return None if kind == fcntl.F_UNLCK else pid

    def stop(self, patience_s: float, waiting: Callable[[int], None] = lambda _: None) -> bool:
        """Ask the running process to stop and wait for it; False when none runs. `waiting` hears when it takes long."""
        pid = self.holder()
        if pid is None:
            return False
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if self.holder() != pid:  # the number may have gone to somebody else meanwhile
                return False
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], min(_QUIET_S, patience_s))[0]:
                waiting(pid)
            if not select.select([process], [], [], patience_s)[0]:
                raise Conflict(why=f"Endpoint <{self.name}> (process {pid}) did not stop within {patience_s:.0f} s.")
        except PermissionError:
            raise Conflict(why=f"Endpoint <{self.name}> (process {pid}) belongs to another account.") from None
        finally:
            os.close(process)
        return True

    def remove(self) -> None:
        """All of its files."""
        shutil.rmtree(self.directory)


def name_argument(default: str | None = "default") -> click.Argument:
    """NAME, which a shell can complete."""

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        return [CompletionItem(one.name) for one in LocalEndpoint.every() if one.name.startswith(begun)]

    return click.Argument(["name"], default=default, required=False, shell_complete=complete)


def _home() -> Path:
    return Path(os.environ.get("MUSTER_HOME") or "~/.muster").expanduser()
