"""The real path: a sealed order goes to the monitor, and the kernel says what came out of it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid5

import pytest

from root.orders import KEY, MANAGER, MAPPING, RECORD, identity, name_of, order, step
from root.rules import ALICE, HARPER, Inside, broken

pytestmark = pytest.mark.root

BOTH = ("answer", "exited")


def play(inside: Inside, steps: list[Any], **more: Any) -> dict[str, Any]:
    document = {"steps": steps, "mapping": MAPPING, "record": RECORD, **more}
    outcome: dict[str, Any] = inside("monitor_stage.py", document, 120)
    outcome["steps"] = [one for one in outcome["transcript"] if "step" in one]
    return outcome


def answers(outcome: dict[str, Any]) -> list[str]:
    return [said["code"] for one in outcome["steps"] for said in one.get("heard", ()) if "answer" in said]


def probe_of(one: dict[str, Any]) -> dict[str, Any]:
    line = next(line for line in one["early"].splitlines() if line.startswith("PROBE "))
    seen: dict[str, Any] = json.loads(line.removeprefix("PROBE "))
    return seen


@pytest.fixture(scope="module")
def two(inside: Inside) -> dict[str, Any]:
    """alice and harper, one after the other, and what the log says of it."""
    harper = order("harper@example.org", name=name_of("harper"))
    return play(inside, [step(order(), until=BOTH), step(harper, until=BOTH)])


@pytest.fixture(scope="module")
def seen(two: dict[str, Any]) -> dict[str, Any]:
    return probe_of(two["steps"][0])


def handed(seen: dict[str, Any]) -> set[str]:
    words = seen["arguments"]
    return {words[at + 1] for at, word in enumerate(words) if word.endswith("-fd")}


def test_every_rule_holds_for_both_of_them(two: dict[str, Any]) -> None:
    for one, account in zip(two["steps"], (ALICE, HARPER), strict=True):
        seen = probe_of(one)
        assert broken(seen, account, {"0", "1", "2", *handed(seen)}) == set()


def test_exactly_the_promised_descriptors_arrive(seen: dict[str, Any]) -> None:
    assert len(handed(seen)) == 5
    kinds = [seen["fds"][fd] for fd in ("0", "1", "2")]
    assert kinds == ["file", "pipe", "pipe"]
    assert sorted(seen["fds"][fd] for fd in handed(seen)) == ["file", "file", "file", "file", "pipe"]


def test_the_payload_arrives_unread(seen: dict[str, Any]) -> None:
    assert seen["payload"] == "secret for alice"
    assert seen["payload_position"] == 0


def test_the_sites_files_arrive_as_descriptors_and_missing_ones_as_empty_files(seen: dict[str, Any]) -> None:
    words = seen["arguments"]
    given = {word: seen["files"].get(words[at + 1]) for at, word in enumerate(words) if word.endswith("-fd")}
    assert given["--template-fd"] == "engine:\n  type: ThreadPoolEngine\n"
    assert given["--schema-fd"] == ""
    assert given["--environment-fd"] == "SITE: yes\n"
    assert given["--manager-config-fd"].startswith("identity_mapping_config_path: ")
    assert given["--lifeline-fd"] is None


def test_the_user_endpoint_learns_its_name_its_digest_and_who_was_mapped(seen: dict[str, Any]) -> None:
    words = dict(zip(seen["arguments"][::2], seen["arguments"][1::2], strict=True))
    who = identity("alice@example.org")["id"]
    assert words["--name"] == name_of()
    assert words["--payload-sha256"] == order().payload_sha256.hex()
    assert json.loads(words["--mapped"]) == {"globus": {"id": who}, "candidates": [[{who: ["alice"]}]]}


def test_the_log_has_the_seeds_lines(two: dict[str, Any]) -> None:
    who = identity("alice@example.org")["id"]
    label = f"[(alice, {name_of()}) muster-endpoint start {name_of()} --die-with-parent]"
    log = two["log"]
    assert f"Command process successfully forked for 'alice' (Globus effective identity: {who})." in log
    pid = log.split("Creating new user endpoint (pid: ")[1].split(")")[0]
    assert f"Creating new user endpoint (pid: {pid}) {label}" in log
    assert f"Command stopped normally ({pid}) {label}" in log
    assert "the scenario is over" in log


def test_the_agent_is_nobody_special(two: dict[str, Any]) -> None:
    agent = two["transcript"][0]
    assert agent["uid"] == 990
    assert 0 not in agent["groups"]
    assert KEY.hex() not in json.dumps(two)


def test_the_exit_is_told_with_its_status(two: dict[str, Any]) -> None:
    exits = [said for one in two["steps"] for said in one["heard"] if said.get("event") == "exited"]
    assert [(said["name"], said["status"]) for said in exits] == [(name_of(), 0), (name_of("harper"), 0)]
    assert two["status"] == 0
    assert two["complained"] == ""


def test_orders_that_root_must_not_believe(inside: Inside) -> None:
    good = order()
    raw = good.encode()
    old, far = order(expires_s=1_600_000_000), order(expires_s=4_000_000_000)
    elsewhere = "00000000-0000-4000-8000-000000000000"
    cases = {
        "wrong key": (step(raw, key=b"x" * 32), "START_FAILED"),
        "altered identity": (step(raw.replace(b"alice@", b"harpr@"), seal=sealed(raw)), "START_FAILED"),
        "altered payload digest": (step(raw.replace(good.payload_sha256, b"0" * 32), seal=sealed(raw)), "START_FAILED"),
        "bytes after the end": (step(raw + b"x"), "START_FAILED"),
        "cut off": (step(raw[:-3]), "START_FAILED"),
        "nothing": (step(b""), "START_FAILED"),
        "other recipient": (step(order(recipient=elsewhere)), "START_FAILED"),
        "name of another manager": (step(order(name=f"uep.{elsewhere}.{elsewhere}")), "START_FAILED"),
        "name with a path": (step(order(name=f"uep.{MANAGER}.../../etc")), "START_FAILED"),
        "expired": (step(old), "STALE"),
        "expires too far away": (step(far), "STALE"),
        "older than the monitor": (step(order(expires_s=good.expires_s - 120)), "STALE"),
        "good": (step(good, until=BOTH), "STARTED"),
        "replayed": (step(good), "STALE"),
        "nobody": (step(order("eve@example.com")), "IDENTITY_UNMAPPED"),
        "suffix": (step(order("alice@example.org.evil.net")), "IDENTITY_UNMAPPED"),
        "not usable": (step(order(identities=[identity("alice@example.org", status="closed")])), "IDENTITY_UNMAPPED"),
        "no such account": (step(order("dave@example.org")), "IDENTITY_UNMAPPED"),
        "root": (step(order("root@example.org")), "START_FAILED"),
        "root by another name": (step(order("second_root@example.org")), "START_FAILED"),
        "the agent's number": (step(order("second_agent@example.org")), "START_FAILED"),
        "a system account": (step(order("daemon@example.org")), "START_FAILED"),
        "no account name": (step(order("../0@example.org")), "IDENTITY_UNMAPPED"),
        "no home": (step(order("homeless@example.org")), "START_FAILED"),
    }
    outcome = play(inside, [case for case, _ in cases.values()])
    assert dict(zip(cases, answers(outcome), strict=True)) == {name: code for name, (_, code) in cases.items()}
    assert outcome["log"].count("successfully forked") == 1
    said = [one["heard"][0].get("public", "") for one in outcome["steps"]]
    assert "the home directory /home/nowhere is missing or closed" in said[-1]


def sealed(raw: bytes) -> bytes:
    from muster.wire.order import seal

    return seal(raw, KEY)


def test_a_malformed_request_ends_the_agent_and_another_one_goes_on(inside: Inside) -> None:
    steps: list[Any] = [{"raw": "getattr 1\n", "await": ["end of line"]}]
    good = step(order(), until=BOTH)
    without_log = step(order(), until=("end of line",), descriptors=1)
    outcome = play(inside, [*steps, without_log, good])
    assert answers(outcome) == ["STARTED"]
    assert outcome["log"].count("sent what none of ours sends") == 2
    assert len([one for one in outcome["transcript"] if "hello" in one]) == 3


def test_children_survive_the_agent_and_the_next_one_is_told_of_them(inside: Inside) -> None:
    lasting = step(order(payload_sha256=b"L" * 32))
    outcome = play(inside, [lasting, {"die": True}, {"await": []}], prepare=SLEEPING_PROBE)
    hellos = [one["hello"] for one in outcome["transcript"] if "hello" in one]
    assert [hello["running"] for hello in hellos] == [[], [name_of()]]
    assert "Command stopped with SIGTERM" in outcome["log"]


SLEEPING_PROBE = """
at=$(ls -d /srv/python/lib/*/site-packages/muster/endpoint)
printf 'import os, signal\\nos.close(1); os.close(2)\\nsignal.pause()\\n' > "$at/__main__.py"
"""


@pytest.mark.parametrize(
    ("spoil", "file"),
    [
        ("chmod 666 mapping.json", "mapping.json"),
        ("chown 2001 mapping.json", "mapping.json"),
        ("mv mapping.json other.json && ln -s other.json mapping.json", "mapping.json"),
        ("chmod 777 .", "debug_queue"),
        ("chown 2001 user_config_template.yaml", "user_config_template.yaml"),
        ("rm user_environment.yaml && mkfifo user_environment.yaml", "user_environment.yaml"),
    ],
)
def test_files_that_others_could_have_changed_are_refused_with_the_remedy(
    inside: Inside, spoil: str, file: str
) -> None:
    outcome = play(inside, [step(order())], prepare=spoil, until_log=file)
    told = outcome["log"] + outcome["complained"]
    assert "successfully forked" not in told
    assert f"/srv/sites/{file}" in told or f"/srv/sites/debug_queue/{file}" in told
    assert "could be changed by others" in told or "without following links" in told


def test_a_site_program_maps_and_a_hanging_one_is_ended_with_its_children(inside: Inside) -> None:
    prepare = """
    cat > knows <<'X'
#!/usr/bin/python3
import json, sys
asked = json.load(sys.stdin)
result = [{"id": one["id"], "output": "alice"} for one in asked["identities"]]
print(json.dumps({"DATA_TYPE": "identity_mapping_output#1.0.0", "result": result}))
X
    printf '#!/bin/sh\\nsleep 1000 & sleep 1000\\n' > hangs
    chmod 755 knows hangs
    """
    program = "external_identity_mapping#1.0.0"
    mapping = [{"DATA_TYPE": program, "command": [f"/srv/sites/debug_queue/{name}"]} for name in ("hangs", "knows")]
    outcome = play(inside, [step(order("anyone@example.com"), until=BOTH)], mapping=mapping, prepare=prepare)
    assert answers(outcome) == ["STARTED"]
    assert probe_of(outcome["steps"][0])["uid"] == ["2002"] * 4
    assert "hangs ended with" in outcome["log"]


def test_a_pattern_that_never_ends_is_ended(inside: Inside) -> None:
    rule = {"source": "{username}", "match": "((.*)*)*@x", "output": "{0}"}
    mapping = [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [rule]}]
    outcome = play(inside, [step(order("a" * 40 + "@example.org"))], mapping=mapping)
    assert answers(outcome) == ["START_FAILED"]
    assert "the identity mapping ended with -14" in outcome["log"]


def test_a_closed_interpreter_is_named(inside: Inside) -> None:
    sentence = "_muster cannot read /srv/python/lib"
    outcome = play(inside, [], prepare="chmod 700 /srv/python/lib", until_log=sentence)
    assert sentence in outcome["log"]


def test_owner_ids_are_no_mapping(inside: Inside) -> None:
    owner = {**identity("owner@example.com"), "id": str(uuid5(UUID(MANAGER), "owner"))}
    outcome = play(inside, [step(order(identities=[owner]))])
    assert answers(outcome) == ["IDENTITY_UNMAPPED"]
