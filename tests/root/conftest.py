"""Everything here runs as real root among accounts of our own, in a private mount namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from root.rules import Inside

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def inside() -> Inside:
    """Run a program of this directory inside the namespace: a JSON document in, a JSON document out."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        if os.environ.get("CI"):
            pytest.fail("these tests need root and unshare, and CI must not skip them")
        pytest.skip("needs root and unshare")

    def run(program: str, document: Any, timeout_s: float = 60) -> Any:
        call = ["sh", str(HERE / "in_namespace.sh"), sys.executable, str(HERE / program)]
        done = subprocess.run(
            call, input=json.dumps(document), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run
