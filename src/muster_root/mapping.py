"""Which local account an identity set has. A program of its own, as patterns and the site's programs can hang.

    python3 -I -S mapping.py 1 ENDPOINT 3 <MAPPING_FILE 3<IDENTITIES

It tells the account's name and the identity's id on the first descriptor.
Started by the monitor as root, under a deadline; nobody before it reads an identity, unless the file names programs.
It must never print a name it has not checked. Exit 0 and no output: none of these identities has an account.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

EXPRESSION, EXTERNAL = "expression_identity_mapping#1.0.0", "external_identity_mapping#1.0.0"
INPUT, OUTPUT = "identity_mapping_input#1.0.0", "identity_mapping_output#1.0.0"
CONNECTOR = "145812c8-decc-41f1-83cf-bb2a85a2a70b"  # programs written for the official endpoint expect it
NAME = re.compile(r"(?=.*[^0-9])[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")  # POSIX, and never taken for a number
NOBODY, PROGRAM_S, ENTRY_S, LIMIT_BYTES, LIMIT_CHARACTERS = 65534, 5, 7, 64 * 1024, 256
Find = Callable[[list[dict[str, str]], str], "tuple[str, str] | None"]


def pattern(rule: dict[str, Any]) -> re.Pattern[str]:
    """The official subset: `. ? * | ( )`, and backslash before one of them or a group's number; all else is itself."""
    match, flags = rule["match"], re.ASCII | (re.IGNORECASE if rule.get("ignore_case") is True else 0)
    if rule.get("literal") is True:
        return re.compile(re.escape(match), flags)
    parts = re.findall(r"\\[.?*|()\\1-9]|.", match, re.DOTALL)
    if "\\" in parts or re.search(r"(^|[(|?*])[?*]", "".join(part if len(part) == 1 else "x" for part in parts)):
        raise ValueError(f"{match!r}: a * or ? with nothing to repeat, or a backslash before an ordinary character")
    return re.compile("".join(part if part in ".?*|()" or len(part) > 1 else re.escape(part) for part in parts), flags)


def fill(form: str, values: dict[str, str]) -> str | None:
    """`{name}` becomes its value, in one pass: what a value holds is not looked at again. None: a value is missing."""
    if any(not values.get(name) for name in re.findall(r"\{(\w+)\}", form)):
        return None
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], form)


def by_expression(entry: dict[str, Any]) -> Find:
    rules = [(rule["source"], pattern(rule), rule["output"]) for rule in entry["mappings"]]

    def find(identities: list[dict[str, str]], _endpoint: str) -> tuple[str, str] | None:
        mappable = [identity for identity in identities if identity.get("status") in ("used", "private")]
        for (source, match, output), identity in ((rule, identity) for rule in rules for identity in mappable):
            value = fill(source, identity)
            hit = match.fullmatch(value) if value and len(value) <= LIMIT_CHARACTERS and value.isprintable() else None
            name = fill(output, {str(at): group for at, group in enumerate(hit.groups())}) if hit else None
            if name:
                return name, identity["id"]
        return None

    return find


def by_program(entry: dict[str, Any]) -> Find:
    command = entry["command"]
    if not command or not all(isinstance(part, str) for part in command) or command[0][:1] != "/":
        raise ValueError("`command` must be a list of texts that begins with an absolute path")

    def find(identities: list[dict[str, str]], endpoint: str) -> tuple[str, str] | None:
        known, environment = [identity["id"] for identity in identities], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        with os.fdopen(os.memfd_create("ask"), "w+b") as ask, os.fdopen(os.memfd_create("said"), "w+b") as said:
            ask.write(json.dumps({"DATA_TYPE": INPUT, "identities": identities}).encode())
            ask.seek(0)
            call = [*command, "-c", CONNECTOR, "-s", endpoint, "-a"]
            process = subprocess.Popen(call, stdin=ask, stdout=said, cwd="/", env=environment, start_new_session=True)
            ended = select.select([os.pidfd_open(process.pid)], [], [], PROGRAM_S)[0]
            os.killpg(process.pid, signal.SIGKILL)  # whatever it left behind too; not yet reaped, so its own group
            if process.wait() != 0 or not ended:
                raise ValueError(f"{command[0]} ended with {process.returncode} or took longer than {PROGRAM_S} s")
            answer = json.loads(os.pread(said.fileno(), LIMIT_BYTES, 0))
        if answer["DATA_TYPE"] != OUTPUT or any(one["id"] not in known for one in answer["result"]):
            raise ValueError(f"{command[0]} answered with another DATA_TYPE, or for an identity it was not asked about")
        return next(((one["output"], one["id"]) for one in answer["result"]), None)

    return find


def main() -> None:
    kinds = {EXPRESSION: by_expression, EXTERNAL: by_program}
    tell, endpoint, asked = sys.argv[1:]
    entries = json.loads(sys.stdin.buffer.read())
    finders = [kinds[entry["DATA_TYPE"]](entry) for entry in entries]  # an unknown kind: no guessing, no mapping
    if os.getuid() == 0 and not any(entry["DATA_TYPE"] == EXTERNAL for entry in entries):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    identities, found = json.loads(os.fdopen(int(asked), "rb").read()), None
    for finder in finders:
        signal.alarm(ENTRY_S)  # a pattern that never ends is ended, and this process with it
        try:
            found = found or finder(identities, endpoint)
        except (ValueError, KeyError, TypeError, OSError) as why:  # this entry failed: the next one may know
            sys.stderr.write(f"identity mapping: {type(why).__name__}: {why}\n")
    if found and NAME.fullmatch(found[0]):
        os.write(int(tell), "{}\n{}".format(*found).encode())
    elif found:
        sys.stderr.write(f"identity mapping: {found[0][:80]!r} is not the name of an account\n")


if __name__ == "__main__":
    main()
