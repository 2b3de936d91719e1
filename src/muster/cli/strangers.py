"""Before the seal key comes: nothing may run as the agent's account that could read it in the registrar."""

from __future__ import annotations

import pwd
import time
from pathlib import Path

from muster.errors import EndpointNotStarted

PATIENCE_S = 15  # an agent whose monitor was killed takes a moment to leave
_LOOK_S = 0.2


def expect_none(account: int, patience_s: float = PATIENCE_S) -> None:
    """EndpointNotStarted when processes of the account stay that no monitor or command of ours started.

    An agent that was taken over could leave one behind, for instance; it would share an account with the registrar.
    """
    until_s = time.monotonic() + patience_s
    while found := strangers(account):
        if time.monotonic() > until_s:
            name = pwd.getpwuid(account).pw_name
            raise EndpointNotStarted(
                why=f"processes run as {name} that no manager started ({', '.join(map(str, found[:5]))}); they could "
                f"read its keys. Look at them, and end them with: pkill -KILL -u {name}"
            )
        time.sleep(_LOOK_S)


def strangers(account: int) -> list[int]:
    """Processes of that account whose parent is not root's and ours."""
    numbered = [process for process in Path("/proc").iterdir() if process.name.isdigit()]
    return sorted(int(process.name) for process in numbered if _is_stranger(process, account))


def _is_stranger(process: Path, account: int) -> bool:
    try:
        if account not in _uids(process) or _status(process, "State")[0] == "Z":  # the dead look at nothing
            return False
        parent = Path("/proc", _status(process, "PPid")[0])
        return _uids(parent) != {0} or b"muster" not in (parent / "cmdline").read_bytes()
    except (OSError, IndexError):
        return False  # one of the two ended meanwhile


def _uids(process: Path) -> set[int]:
    return set(map(int, _status(process, "Uid")))


def _status(process: Path, name: str) -> list[str]:
    """The words of that line of its status."""
    lines = (process / "status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))
