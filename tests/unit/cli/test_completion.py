"""The shells complete commands, options and the names of endpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli.completion import completion
from muster.cli.endpoint import muster_endpoint

BIN = Path(sys.executable).parent


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_the_script_for_both_commands(shell: str) -> None:
    script = CliRunner().invoke(completion, [shell]).stdout
    assert "_MUSTER_COMPLETE" in script
    assert "_MUSTER_ENDPOINT_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def complete(program: str, words: str, tmp_path: Path) -> list[str]:
    """What the script asks for at every press of the key."""
    asked = {
        f"_{program.replace('-', '_').upper()}_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "MUSTER_HOME": str(tmp_path),
    }
    done = subprocess.run([BIN / program], env=os.environ | asked, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_are_completed(tmp_path: Path) -> None:
    assert complete("muster", "muster re", tmp_path) == ["relay"]
    assert complete("muster-endpoint", "muster-endpoint enable", tmp_path) == ["enable-on-boot"]


def test_names_of_endpoints_are_completed(tmp_path: Path) -> None:
    for name in ("prod", "preview", "other"):
        CliRunner().invoke(muster_endpoint, ["-c", str(tmp_path), "configure", name])
    assert complete("muster-endpoint", "muster-endpoint start pr", tmp_path) == ["preview", "prod"]
