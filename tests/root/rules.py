"""What must hold for a process that became somebody. One name a rule; a test asks for the broken ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Inside = Callable[..., Any]  # the fixture: program and document in, document out

ALICE: dict[str, Any] = {
    "name": "alice",
    "uid": 2002,
    "groups": [2002, 3001, 3002],
    "home": "/home/alice",
    "shell": "/bin/sh",
}
HARPER: dict[str, Any] = {
    "name": "harper",
    "uid": 2001,
    "groups": [2001, 3001],
    "home": "/home/harper",
    "shell": "/bin/sh",
}
GUEST: dict[str, Any] = {
    "name": "guest",
    "uid": 2005,
    "groups": [2005],
    "home": "/",
    "shell": "/bin/sh",
}  # a home open to all
ACCOUNTS: dict[str, dict[str, Any]] = {str(account["name"]): account for account in (ALICE, HARPER, GUEST)}
# SIGPIPE and SIGXFSZ: every Python ignores them, the probe too. 32 and 33 belong to the C library, which lets nobody
# touch them.
NOT_OURS = sum(1 << (number - 1) for number in (13, 25, 32, 33))


def broken(seen: dict[str, Any], account: dict[str, Any], fds: set[str]) -> set[str]:
    number = str(account["uid"])
    environment = seen["environment"]
    holds = {
        "uid": set(seen["uid"]) == {number} and len(seen["uid"]) == 4,
        "gid": set(seen["gid"]) == {number} and len(seen["gid"]) == 4,
        "groups": seen["groups"] == account["groups"],
        "capabilities": not any(int(bits, 16) for bits in seen["caps"].values()),
        "no_new_privs": seen["no_new_privs"] == "1",
        "no_way_back": seen["ways_back"] == [],
        "signals": int(seen["blocked"], 16) == 0 and int(seen["ignored"], 16) & ~NOT_OURS == 0,
        "descriptors": set(seen["fds"]) == fds,
        "umask": seen["umask"] == "0077",
        "home": seen["cwd"] == account["home"],
        "session": seen["leads_session"],
        "core": seen["core"] == [0, 0],
        "environment": set(environment) == {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG"}
        and environment["HOME"] == account["home"]
        and environment["USER"] == environment["LOGNAME"] == account["name"]
        and environment["PATH"].startswith("/usr/local/bin:/usr/bin:/bin:/"),
    }
    return {rule for rule, held in holds.items() if not held}
