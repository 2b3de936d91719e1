"""Identity mapping: the official file format, without the official mistakes. The program is run as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import muster_root

PROGRAM = Path(muster_root.__path__[0]) / "mapping.py"
EXPRESSION = "expression_identity_mapping#1.0.0"
WHO = "b072d17b-08fd-4ada-8949-1fddca189b5e"


def run(entries: Any, identities: list[dict[str, str]]) -> tuple[str, str, int]:
    fd = os.memfd_create("identities")
    os.pwrite(fd, json.dumps(identities).encode(), 0)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM), "1", "endpoint", str(fd)],
            input=json.dumps(entries),
            capture_output=True,
            text=True,
            pass_fds=[fd],
            check=False,
            timeout=30,
        )
    finally:
        os.close(fd)
    return done.stdout, done.stderr, done.returncode


def mapped(rule: dict[str, Any], *usernames: str, **more: str) -> str | None:
    """The account for these people, with one expression rule."""
    entries = [{"DATA_TYPE": EXPRESSION, "mappings": [{"source": "{username}", "output": "{0}", **rule}]}]
    identities = [{"id": WHO, "username": name, "status": "used", **more} for name in usernames]
    said, complained, status = run(entries, identities)
    assert status == 0, complained
    return said.split("\n")[0] if said else None


@pytest.mark.parametrize(
    ("match", "username", "account"),
    [
        ("(.*)@example.com", "mickey97@example.com", "mickey97"),
        ("(.*)@example\\.com", "mickey97@exampleXcom", None),
        ("(.*)@example.com", "mickey97@example.com.evil.net", None),
        ("(.*)@example.com", "mickey97@example.com\n", None),
        ("(a.*)@x\\.org|(b.*)@x\\.org", "alice@x.org.evil.net", None),
        ("(a@x|b)@y", "b@y", "b"),
        ("(.*)@[a-z]+", "harper@example", None),
        ("(.*)@[a-z]+", "harper@[a-z]+", "harper"),
        ("(.*)@example.com", "@example.com", None),
        ("(.*)@example.com", "../0@example.com", None),
        ("(.*)@example.com", "-u@example.com", None),
        ("(.*)@example.com", "0@example.com", None),
        ("(.*)@example.com", "harp er@example.com", None),
    ],
)
def test_the_whole_value_must_match_and_the_name_must_be_one(match: str, username: str, account: str | None) -> None:
    assert mapped({"match": match}, username) == account


def test_the_first_mapping_wins_before_the_first_identity() -> None:
    rules = [
        {"source": "{username}", "match": "(h.*)@example.com", "output": "{0}"},
        {"source": "{username}", "match": "(.*)@example.com", "output": "{0}"},
    ]
    people = [
        {"id": f"{n}", "username": f"{name}@example.com", "status": "used"}
        for n, name in enumerate(("alice", "harper"))
    ]
    assert run([{"DATA_TYPE": EXPRESSION, "mappings": rules}], people)[0] == "harper\n1"


def test_values_are_interpolated_once() -> None:
    assert mapped({"match": "(.*)@(.*)", "output": "{0}-{1}"}, "{1}@example") is None
    assert mapped({"match": "(.*)@(.*)", "output": "{0}-{1}"}, "a@b") == "a-b"


def test_a_missing_attribute_or_group_is_no_match_and_the_next_rule_goes_on() -> None:
    assert mapped({"source": "{email}", "match": ".*", "output": "harper"}, "harper@example.com") is None
    assert mapped({"match": "(a)?(.*)@x", "output": "{0}"}, "b@x") is None
    assert mapped({"match": "(.*)@x", "output": "{3}"}, "b@x") is None


def test_case_is_folded_in_ascii_only() -> None:
    assert mapped({"match": "(.*)@EXAMPLE.COM", "ignore_case": True}, "harper@example.com") == "harper"
    assert mapped({"match": "(.*)@k", "ignore_case": True}, "harper@\u212a") is None


def test_literal_means_literal() -> None:
    assert mapped({"match": ".*", "literal": True, "output": "harper"}, "anything") is None
    assert mapped({"match": ".*", "literal": True, "output": "harper"}, ".*") == "harper"


@pytest.mark.parametrize("status", ["closed", "unused", ""])
def test_identities_that_are_not_in_use_are_passed_over(status: str) -> None:
    assert mapped({"match": "(.*)@example.com"}, "harper@example.com", status=status) is None


@pytest.mark.parametrize("match", ["*a", "a**", "a*?", "(?i)a", "a|*b", "\\w", "a\\", "?"])
def test_patterns_outside_the_subset_make_the_file_unusable(match: str) -> None:
    entries = [{"DATA_TYPE": EXPRESSION, "mappings": [{"source": "{username}", "match": match, "output": "harper"}]}]
    said, complained, status = run(entries, [{"id": WHO, "username": "a", "status": "used"}])
    assert (said, status) == ("", 1)
    assert "a * or ? with nothing to repeat" in complained


@pytest.mark.parametrize(
    "entries",
    [
        [{"DATA_TYPE": "something_else#1.0.0"}],
        [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["relative/path"]}],
        {"not": "a list"},
    ],
)
def test_what_is_not_understood_maps_nobody(entries: Any) -> None:
    said, _, status = run(entries, [{"id": WHO, "username": "harper@example.com", "status": "used"}])
    assert (said, status) == ("", 1)


def test_the_seeds_example_file_ignores_bin_false_and_maps_example_com() -> None:
    from muster.cli.configure import _MAPPING

    people = [{"id": WHO, "username": "mickey97@example.com", "status": "used"}]
    assert run(json.loads(_MAPPING), people)[0] == f"mickey97\n{WHO}"


def answering(tmp_path: Path, document: str) -> list[dict[str, Any]]:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat <<'X'\n{document}\nX\n")
    program.chmod(0o755)
    return [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(program)]}]


@pytest.mark.parametrize(
    ("result", "account"),
    [
        ([{"id": WHO, "output": "harper"}], "harper"),
        ([], None),
        ([{"id": "somebody else", "output": "harper"}], None),
        ([{"id": WHO, "output": "../etc"}], None),
    ],
)
def test_a_program_answers_only_for_whom_it_was_asked(
    tmp_path: Path, result: list[dict[str, str]], account: str | None
) -> None:
    answer = json.dumps({"DATA_TYPE": "identity_mapping_output#1.0.0", "result": result})
    said, _, status = run(answering(tmp_path, answer), [{"id": WHO, "username": "harper@example.com"}])
    assert status == 0
    assert (said.split("\n")[0] or None) == account


def test_a_programs_garbage_is_its_own_failure(tmp_path: Path) -> None:
    assert run(answering(tmp_path, "no json"), [{"id": WHO}])[0] == ""
