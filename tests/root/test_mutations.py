"""Every defence of `become` is removed once; the probe, or the program's own check, must notice each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from root.rules import ACCOUNTS, ALICE, Inside, broken

pytestmark = pytest.mark.root

CHECK = "    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or libc.setresuid(0, 0, 0) == 0:\n"
UNCHECKED = [CHECK, "    if False:\n"]
SETRESUID = "os.setresuid(uid, uid, uid)"
SETRESGID = "os.setresgid(gid, gid, gid)"
FOLDING = ["pwd.getpwnam(user) if user", "pwd.getpwnam(user.lower()) if user"]  # a directory that folds case
REFUSED = "refused by the program's own check"
STARTED = "started, and must not have"
FDS = {"1", "2", "0"}


@dataclass(frozen=True)
class Mutant:
    """`expected`: the rules that break, or how else it shows."""

    name: str
    changes: list[list[str]]
    expected: set[str]
    facts: dict[str, Any] = field(default_factory=dict)


MUTANTS = [
    Mutant("no initgroups", [["os.initgroups(account.pw_name, gid)", "pass"]], {"groups"}),
    Mutant("initgroups with root's group", [["initgroups(account.pw_name, gid)", "initgroups('root', 0)"]], {"groups"}),
    Mutant("no setresgid", [[SETRESGID, "pass"]], {REFUSED}),
    Mutant("setegid only", [[SETRESGID, "os.setegid(gid)"]], {REFUSED}),
    Mutant("setegid, unchecked", [[SETRESGID, "os.setegid(gid)"], UNCHECKED], {"gid", "no_way_back"}),
    Mutant("no setresuid", [[SETRESUID, "pass"]], {REFUSED}),
    Mutant("seteuid only", [[SETRESUID, "os.seteuid(uid)"]], {REFUSED}),
    Mutant("the saved id stays root", [[SETRESUID, "os.setresuid(uid, uid, 0)"]], {REFUSED}),
    Mutant("no setresuid, unchecked", [[SETRESUID, "pass"], UNCHECKED], {"uid", "no_way_back"}, {"user": "guest"}),
    Mutant("user before groups", [["os.initgroups(account.pw_name, gid)", "os.setresuid(uid, uid, uid)"]], {REFUSED}),
    Mutant("bounding set kept", [["libc.prctl(CAPBSET_DROP, number, 0, 0, 0) != 0", "False"]], {"capabilities"}),
    Mutant(
        "inheritable capabilities kept",
        [["libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_3), (ctypes.c_uint32 * 6)())", "0"]],
        {"capabilities"},
    ),
    Mutant("new privileges allowed", [["libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) != 0", "False"]], {"no_new_privs"}),
    Mutant("no umask", [["os.umask(0o077)", "pass"]], {"umask"}),
    Mutant("no chdir", [['os.chdir(place.replace("~", home, 1))', "pass"]], {"home"}),
    Mutant("no setsid", [["os.setsid()", "pass"]], {"session"}),
    Mutant("descriptors stay open", [["os.closerange(low + 1, high)", "pass"]], {"descriptors"}),
    Mutant("the pipe stays open", [["os.set_inheritable(int(tell), False)", "pass"]], {"descriptors"}),
    Mutant("blocked signals stay", [["signal.pthread_sigmask(signal.SIG_SETMASK, ())", "pass"]], {"signals"}),
    Mutant("ignored signals stay", [["signal.signal(number, signal.SIG_DFL)", "pass"]], {"signals"}),
    Mutant("core files", [["resource.setrlimit(resource.RLIMIT_CORE, (0, 0))", "pass"]], {"core"}),
    Mutant("environment not the user's", [['"USER": account.pw_name', '"USER": "root"']], {"environment"}),
    Mutant("system accounts allowed", [["max(1, lowest_uid)", "1"]], {STARTED}, {"user": "daemon", "barred": ""}),
    Mutant(
        "root by another name allowed",
        [["max(1, lowest_uid)", "lowest_uid"], UNCHECKED],
        {STARTED},
        {"user": "second_root", "lowest": 0, "barred": ""},
    ),
    Mutant(
        "the agent's number allowed",
        [[" or str(account.pw_uid) in barred", ""]],
        {STARTED},
        {"user": "second_agent", "lowest": 1},
    ),
    Mutant(
        "another name accepted",
        [FOLDING, ["if user and account.pw_name != user", "if False"]],
        {STARTED},
        {"user": "ALICE"},
    ),
]


@pytest.fixture(scope="module")
def outcomes(inside: Inside) -> dict[str, dict[str, Any]]:
    """All of them in one go; each a process of its own."""
    cases = [{"changes": mutant.changes, **mutant.facts} for mutant in MUTANTS]
    return dict(zip([mutant.name for mutant in MUTANTS], inside("become_stage.py", cases, 120), strict=True))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_missing_defence_is_noticed(mutant: Mutant, outcomes: dict[str, dict[str, Any]]) -> None:
    came = outcomes[mutant.name]
    if mutant.expected == {REFUSED}:
        assert came["seen"] is None
        assert came["told"].startswith(("PermissionError", "+PermissionError"))
    elif mutant.expected == {STARTED}:
        assert came["seen"] is not None or came["told"].startswith("+"), came
    else:
        assert came["seen"] is not None, came
        assert broken(came["seen"], ACCOUNTS[mutant.facts.get("user", "alice")], FDS) == mutant.expected


def test_the_program_as_it_is_breaks_no_rule_and_starts_none_of_the_forbidden(inside: Inside) -> None:
    forbidden = [mutant for mutant in MUTANTS if mutant.expected == {STARTED}]
    changes = [[FOLDING] if mutant.facts["user"].isupper() else [] for mutant in forbidden]
    cases = [{"changes": change, **mutant.facts} for change, mutant in zip(changes, forbidden, strict=True)]
    clean, *refused = inside("become_stage.py", [{}, *cases])
    assert clean["told"] == "+"
    assert broken(clean["seen"], ALICE, FDS) == set()
    for came, mutant in zip(refused, forbidden, strict=True):
        assert came["seen"] is None, mutant.name
        assert came["told"].startswith("PermissionError"), mutant.name
