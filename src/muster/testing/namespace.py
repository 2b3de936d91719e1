"""Several accounts and a network of one's own, on a machine that stays as it was.

A holder process owns private mount and network namespaces: its own /etc/passwd and /etc/group, a loopback where every
port is free. Other processes are started inside it by `command`. Needs root, and a kernel that grants namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PEOPLE: Mapping[str, int] = {"harper": 2001, "alice": 2002, "mickey97": 2003}
AGENT, AGENT_UID = "_muster", 990
_HOLD = """
set -e
if [ "$3" = net ]; then ip link set lo up; fi
mount --bind "$1" /etc/passwd
mount --bind "$2" /etc/group
echo ready
read -r _
"""


class NamespaceRefusedError(Exception):
    """The kernel, or the lack of root or of a program, refuses one; the text says which."""


@dataclass(frozen=True, slots=True)
class Person:
    """An account that exists inside the namespace only."""

    name: str
    uid: int
    home: Path


class Namespace:
    """`with Namespace(directory) as space: subprocess.run(space.command([...], "harper"))`."""

    def __init__(self, directory: Path, *, network: bool = True) -> None:
        self.people = {name: Person(name, uid, directory / "home" / name) for name, uid in PEOPLE.items()}
        self._directory = directory
        self._network = network
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise NamespaceRefusedError("only root can make accounts of its own")
        if not shutil.which("unshare") or not shutil.which("nsenter") or (self._network and not shutil.which("ip")):
            raise NamespaceRefusedError("unshare, nsenter (util-linux) and ip (iproute2) are needed")
        passwd, group = self._write_accounts()
        kinds = ["--mount", "--propagation", "private", *(["--net"] if self._network else [])]
        hold = ["sh", "-c", _HOLD, "hold", str(passwd), str(group), "net" if self._network else ""]
        self._holder = subprocess.Popen(
            ["unshare", *kinds, *hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if self._holder.stdout is None or self._holder.stdout.readline().strip() != "ready":
            self._holder.kill()
            said = self._holder.communicate()[1]
            raise NamespaceRefusedError(f"the kernel refuses a namespace: {said.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._holder is not None:
            self._holder.communicate("\n")

    def command(self, command: Sequence[str], account: str | None = None) -> list[str]:
        """The same command, inside; as one of the people when named, else as root."""
        if self._holder is None:
            raise NamespaceRefusedError("not entered")
        enter = ["nsenter", "-t", str(self._holder.pid), "-m", *(["-n"] if self._network else [])]
        if account is not None:
            uid, home = str(PEOPLE.get(account, AGENT_UID)), self._directory / "home" / account
            enter += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
            enter += ["env", f"HOME={home}", f"USER={account}", f"LOGNAME={account}"]
        return [*enter, *command]

    def _write_accounts(self) -> tuple[Path, Path]:
        names = {*PEOPLE, AGENT}
        lines: dict[str, list[str]] = {}
        for file in ("passwd", "group"):
            text = (Path("/etc") / file).read_text()
            lines[file] = [line for line in text.splitlines() if line.split(":")[0] not in names]
        for person in self.people.values():
            person.home.mkdir(parents=True, exist_ok=True)
            person.home.chmod(0o700)
            os.chown(person.home, person.uid, person.uid)
            lines["passwd"].append(f"{person.name}:x:{person.uid}:{person.uid}::{person.home}:/bin/sh")
            lines["group"].append(f"{person.name}:x:{person.uid}:")
        lines["passwd"].append(f"{AGENT}:x:{AGENT_UID}:{AGENT_UID}::/nonexistent:/usr/sbin/nologin")
        lines["group"].append(f"{AGENT}:x:{AGENT_UID}:")
        for file, text_lines in lines.items():
            (self._directory / file).write_text("\n".join(text_lines) + "\n")
        return self._directory / "passwd", self._directory / "group"
