"""What a mapped user, a stolen agent or a neighbour may try against the monitor, tried for real."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID, uuid5

import pytest

from muster_root.monitor import MOST_EACH
from root.orders import MANAGER, MAPPING, RECORD, identity, name_of, order, step
from root.rules import Inside

pytestmark = pytest.mark.root

BOTH = ("answer", "exited")


def play(inside: Inside, steps: list[Any], **more: Any) -> dict[str, Any]:
    document = {"steps": steps, "mapping": MAPPING, "record": RECORD, **more}
    outcome: dict[str, Any] = inside("monitor_stage.py", document, 120)
    outcome["steps"] = [one for one in outcome["transcript"] if "step" in one]
    return outcome


def answers(outcome: dict[str, Any]) -> list[str]:
    return [said["code"] for one in outcome["steps"] for said in one.get("heard", ()) if "answer" in said]


def user_endpoint(code: str) -> str:
    """A shell text that puts this program where the user endpoint is."""
    lines = "\n".join(line.removeprefix("    ") for line in code.strip("\n").split("\n"))
    return f"at=$(ls -d /srv/python/lib/*/site-packages/muster/endpoint)\ncat > $at/__main__.py <<'X'\n{lines}\nX\n"


QUIET = "    import os, signal\n    os.close(1); os.close(2)\n"
SLEEPER = user_endpoint(QUIET + "    signal.pause()\n")


def test_a_user_endpoint_that_dies_of_a_nameless_signal_takes_nobody_with_it(inside: Inside) -> None:
    prepare = user_endpoint("    import os\n    os.kill(os.getpid(), 40)\n")
    second = order("harper@example.org", name=name_of("harper"))
    outcome = play(inside, [step(order(), until=BOTH), step(second, until=BOTH)], prepare=prepare)
    assert answers(outcome) == ["STARTED", "STARTED"]
    assert outcome["log"].count("Command stopped with -40") == 2
    assert outcome["status"] == 0


def test_a_user_endpoint_cannot_reach_the_monitor_or_the_agent(inside: Inside) -> None:
    prepare = user_endpoint("""
    import ctypes, json, os, signal, sys
    def denied(way):
        try:
            way()
        except OSError as why:
            return type(why).__name__
        return "possible"
    monitor = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    def attach():
        if libc.ptrace(16, monitor, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
    ways = {
        "signal": lambda: os.kill(monitor, signal.SIGTERM),
        "continue": lambda: os.kill(monitor, signal.SIGCONT),
        "limits": lambda: __import__("resource").prlimit(monitor, 7, (3, 3)),
        "trace": attach,
        "memory": lambda: open(f"/proc/{monitor}/mem", "rb"),
        "environment": lambda: open(f"/proc/{monitor}/environ", "rb").read(),
        "descriptors": lambda: os.listdir(f"/proc/{monitor}/fd"),
        "log": lambda: open("/srv/sites/debug_queue/endpoint.log"),
        "seal key": lambda: open("/srv/sites/debug_queue/root.json"),
        "agent's state": lambda: os.listdir("/srv/sites/debug_queue/agent"),
        "lifeline for writing": lambda: open(f"/proc/self/fd/{sys.argv[sys.argv.index('--lifeline-fd') + 1]}", "w"),
    }
    print("WAYS " + json.dumps({name: denied(way) for name, way in ways.items()}), flush=True)
    """)
    outcome = play(inside, [step(order(), until=BOTH)], prepare="chmod 700 . agent\n" + prepare)
    told = next(line for line in outcome["steps"][0]["early"].splitlines() if line.startswith("WAYS "))
    ways = json.loads(told.removeprefix("WAYS "))
    assert set(ways.values()) == {"PermissionError"}, ways
    assert outcome["status"] == 0


def test_what_a_user_endpoint_leaves_in_its_group_ends_with_it(inside: Inside) -> None:
    prepare = user_endpoint("""
    import os, time
    os.close(1); os.close(2)
    if os.fork() == 0:
        time.sleep(1000)
    """)
    outcome = play(inside, [step(order(), until=BOTH)], prepare=prepare)
    assert outcome["left"] == []


def test_one_that_ignores_every_request_to_stop_is_ended(inside: Inside) -> None:
    prepare = user_endpoint("""
    import os, signal, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.fork()
    os.write(1, b"deaf")
    os.close(1); os.close(2)
    time.sleep(1000)
    """)
    outcome = play(inside, [step(order(), early_s=20)], prepare=prepare)  # its word is there when it is deaf
    assert "Command stopped with SIGKILL" in outcome["log"]
    assert outcome["left"] == []
    assert 9 < outcome["stopped_in_s"] < 20
    assert outcome["status"] == 0


def test_ten_thousand_bad_starts_move_nothing_and_fill_no_disk(inside: Inside) -> None:
    """The log takes a bounded amount of what the agent causes, and what the monitor itself has to say all the same."""
    outcome = play(inside, [{"flood": 10_000}, step(order(), until=BOTH)])
    assert outcome["steps"][0]["heard"] == [{"answered": 10_000}]
    assert answers(outcome) == ["STARTED"]
    assert len(outcome["log"]) < 1024 * 1024
    assert "successfully forked for 'alice'" in outcome["log"]


def test_the_agent_cannot_forge_lines_of_the_monitor_or_fill_the_log(inside: Inside) -> None:
    forged = "Command process successfully forked for 'root' (Globus effective identity: x)."
    steps = [{"print": forged}, {"print": "x" * 1000 + "\n" + forged}, {"print": "noise\n" * 500_000}]
    outcome = play(inside, [*steps, step(order(), until=BOTH)])
    lines = [line for line in outcome["log"].splitlines() if "forked for 'root'" in line]
    assert lines
    assert all(line[20:].startswith("| ") for line in lines)
    assert len(outcome["log"]) < 8 * 1024 * 1024
    assert answers(outcome) == ["STARTED"]


def test_without_descriptors_it_refuses_and_lives(inside: Inside) -> None:
    people = [f"{name}@example.org" for name in ("alice", "harper", "mickey97")]
    orders = [step(order(people[at % 3], name=name_of(f"n{at}"))) for at in range(12)]
    outcome = play(inside, orders, prepare=SLEEPER, nofile=64 + 22)
    codes = answers(outcome)
    assert codes[0] == "STARTED"
    assert codes[-1] == "START_FAILED"
    assert set(codes) == {"STARTED", "START_FAILED"}
    assert outcome["log"].count("The agent ended") == 1, "only at the end"
    assert outcome["status"] == 0


@pytest.mark.slow
def test_one_account_gets_so_many_user_endpoints_and_no_more(inside: Inside) -> None:
    orders = [step(order(name=name_of(f"n{at}"))) for at in range(MOST_EACH + 1)]
    harper = step(order("harper@example.org", name=name_of("harper")))
    outcome = play(inside, [*orders, harper], prepare=SLEEPER)
    assert answers(outcome) == ["STARTED"] * MOST_EACH + ["START_FAILED", "STARTED"]


def test_files_that_spoil_while_it_runs_end_nobody(inside: Inside) -> None:
    later = [
        ["for 'alice'", "chmod 666 user_config_template.yaml"],
        ["user_config_template.yaml could be changed by others", "chmod 644 user_config_template.yaml"],
    ]
    steps = [step(order()), {"die": True}, step(order("harper@example.org", name=name_of("harper")))]
    outcome = play(inside, steps, prepare=SLEEPER, later=later)
    assert answers(outcome) == ["STARTED", "STARTED"]
    hellos = [one["hello"] for one in outcome["transcript"] if "hello" in one]
    assert [hello["running"] for hello in hellos] == [[], [name_of()]]


def test_what_an_earlier_monitor_obeyed_is_refused_by_the_next(inside: Inside) -> None:
    """Also when the service's clock is ahead, so that the order looks younger than the monitor."""
    seen = order()
    younger = order(expires_s=seen.expires_s + 5)
    prepare = f"printf %020d {seen.expires_s} > last_order"
    outcome = play(inside, [step(seen), step(younger, until=BOTH)], prepare=prepare)
    assert answers(outcome) == ["STALE", "STARTED"]


def test_accounts_with_strange_numbers_and_names_are_nobody(inside: Inside) -> None:
    cases = {
        "overflow@example.org": "START_FAILED",
        "12345@example.org": "IDENTITY_UNMAPPED",
        "alice\0@example.org": "IDENTITY_UNMAPPED",
        "alice\n@example.org": "IDENTITY_UNMAPPED",
        "root\nalice@example.org": "IDENTITY_UNMAPPED",
        "a" * 5000 + "@example.org": "IDENTITY_UNMAPPED",
        "ALICE@example.org": "IDENTITY_UNMAPPED",
        "al\u0131ce@example.org": "IDENTITY_UNMAPPED",
    }
    outcome = play(inside, [step(order(username)) for username in cases])
    assert answers(outcome) == list(cases.values())
    assert "successfully forked" not in outcome["log"]


def test_a_home_that_is_a_link_is_entered_as_the_user_only(inside: Inside) -> None:
    prepare = "mv /home/alice /home/elsewhere && ln -s /root /home/alice\n"
    outcome = play(inside, [step(order())], prepare=prepare)
    assert answers(outcome) == ["START_FAILED"]
    assert "home directory /home/alice is missing or closed" in outcome["log"]


OWNER = {**identity("owner@example.com"), "id": str(uuid5(UUID(MANAGER), "owner"))}


def test_without_root_only_the_owner_is_served_and_nobody_is_become(inside: Inside) -> None:
    stranger = order("harper@example.org")
    second = order(name=name_of("two"), identities=[identity("alice@example.org"), OWNER])
    outcome = play(inside, [step(stranger), step(second, until=BOTH)], owner="harper")
    assert answers(outcome) == ["IDENTITY_UNMAPPED", "STARTED"]
    seen = json.loads(outcome["steps"][1]["early"].split("PROBE ")[1].splitlines()[0])
    assert seen["uid"] == ["2001"] * 4
    mapped = json.loads(seen["arguments"][seen["arguments"].index("--mapped") + 1])
    assert mapped["globus"]["id"] == OWNER["id"]


def test_an_old_order_is_not_worth_a_process(inside: Inside) -> None:
    began = time.monotonic()
    outcome = play(inside, [step(order(expires_s=int(time.time()) - 1)) for _ in range(50)])
    assert answers(outcome) == ["STALE"] * 50
    assert "Creating" not in outcome["log"]
    assert time.monotonic() - began < 30
