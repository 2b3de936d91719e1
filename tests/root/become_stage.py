"""Runs inside the namespace, as root and in a dirty state: starts `become`, or mutants of it, and tells what came.

Input: a list of {"changes": [[old, new], ...], "user", "lowest", "barred", "reads", "command"}.
Output: for each {"told": what it said on its pipe, "seen": what the probe printed}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dirt import STRAY, make_dirty

HERE = Path(__file__).resolve().parent
BECOME = HERE.parents[1] / "src/muster_root/become.py"


def mutant(changes: list[list[str]], place: Path) -> Path:
    text = BECOME.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"the mutation no longer fits: {old!r} stands {text.count(old)} times"
        text = text.replace(old, new)
    path = place / "become.py"
    path.write_text(text)
    return path


def run(case: dict[str, Any], place: Path) -> dict[str, Any]:
    program = mutant(case.get("changes", []), place)
    hear, tell = os.pipe()
    os.set_inheritable(tell, True)
    command = case.get("command") or [sys.executable, "-I", str(place / "probe.py")]
    facts = [str(tell), str(case.get("lowest", 1000)), case.get("barred", "0,990"), "", case.get("reads", ""), "~"]
    call = [sys.executable, "-I", "-S", str(program), *facts, case.get("user", "alice"), *command]
    process = subprocess.Popen(
        call,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        close_fds=False,
        restore_signals=False,
        env={"LANG": "C.UTF-8"},
    )
    os.close(tell)
    said, complained = process.communicate(timeout=20)
    with os.fdopen(hear, "rb") as ear:
        told = ear.read().decode()
    seen = next((json.loads(line[6:]) for line in said.decode().splitlines() if line.startswith("PROBE ")), None)
    return {"told": told, "seen": seen, "complained": complained.decode()[-500:], "status": process.returncode}


def main() -> None:
    cases = json.load(sys.stdin)
    make_dirty()
    place = Path(tempfile.mkdtemp(dir="/srv"))
    place.chmod(0o755)
    (place / "probe.py").write_text((HERE / "probe.py").read_text())
    (place / "probe.py").chmod(0o644)
    print(json.dumps([run(case, place) for case in cases]))


if __name__ == "__main__":
    assert STRAY > 2
    main()
