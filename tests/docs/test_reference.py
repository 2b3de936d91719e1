"""The guides name everything there is, and nothing that is not."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import click
import pytest

from muster.cli.endpoint import muster_endpoint
from muster.cli.main import muster
from muster.config import ManagerConfig, SingleConfig
from muster.config.user_endpoint import UserEndpointConfig
from muster.testing.processes import BIN, clean_environment

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROGRAMS = {"muster": muster, "muster-endpoint": muster_endpoint}
SHELL = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
NOT_KEYS = {"directory", "text", "warnings", "endpoint"}
GUIDES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])


def reference() -> ModuleType:
    specification = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_reference_pages_are_what_the_code_says() -> None:
    stale = [name for name, text in reference().pages().items() if (DOCS / name).read_text() != text]
    assert stale == [], "run: .venv/bin/python tools/reference.py"


def test_every_option_of_a_command_says_what_it_is_for() -> None:
    silent = [
        f"{path} {parameter.opts[0]}"
        for program, command in PROGRAMS.items()
        for path, found in reference().every_command(program, command)
        for parameter in found.params
        if isinstance(parameter, click.Option) and not parameter.hidden and not parameter.help
    ]
    assert silent == []


@pytest.mark.parametrize("kind", [ManagerConfig, UserEndpointConfig, SingleConfig])
def test_every_key_of_a_configuration_file_is_documented(kind: type) -> None:
    text = (DOCS / "configuration.md").read_text()
    assert [field.name for field in fields(kind) if field.name not in NOT_KEYS and f"`{field.name}`" not in text] == []


def test_every_program_of_the_process_table_exists() -> None:
    text = (DOCS / "processes.md").read_text()
    files = set(re.findall(r"muster_root/\w+\.py", text))
    modules = set(re.findall(r"-m (muster[\w.]*)", text))
    assert files
    assert modules
    assert [file for file in files if not (ROOT / "src" / file).exists()] == []
    for module in modules:
        place = ROOT / "src" / module.replace(".", "/")
        program = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
        assert "__main__" in program.name or '__name__ == "__main__"' in program.read_text(), module


def test_the_process_table_misses_no_program_that_is_started_on_a_site() -> None:
    text = (DOCS / "processes.md").read_text()
    sites = [ROOT / "src" / "muster" / part for part in ("manager", "endpoint", "worker")]
    found = [file for place in sites for file in place.rglob("*.py") if '__name__ == "__main__"' in file.read_text()]
    for file in found:
        parts = file.relative_to(ROOT / "src").with_suffix("").parts
        module = ".".join(part for part in parts if part != "__main__")
        assert f"-m {module}" in text, module


def commands(guide: Path) -> Iterator[list[str]]:
    """Every call of ours in a shell block."""
    for block in SHELL.findall(guide.read_text()):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            bare = re.search(r"\$\((.*?)\)", line)
            words = shlex.split(bare[1] if bare else line, comments=True)
            if words and words[0] in PROGRAMS:
                yield words


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_command_of_a_guide_can_be_given(guide: Path) -> None:
    for program, *words in commands(guide):
        command: click.Command = PROGRAMS[program]
        path, rest = program, words
        while isinstance(command, click.Group):
            context = command.make_context(path, list(rest))
            name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            path, command = f"{path} {name}", found
        command.make_context(path, list(rest))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_link_of_a_guide_leads_somewhere(guide: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", guide.read_text())
    assert [link for link in links if not (guide.parent / link).exists()] == []


def test_the_operators_commands_for_people_and_backup_run(tmp_path: Path) -> None:
    text = (DOCS / "operator.md").read_text()
    wanted = [block for block in SHELL.findall(text) if "muster admin" in block or "sqlite3" in block]
    lines = [line for line in "\n".join(wanted).splitlines() if not line.startswith("pg_dump")]
    if shutil.which("sqlite3") is None:
        lines = [line for line in lines if not line.startswith("sqlite3")]
    script = "\n".join(lines).replace("/var/lib/muster", f"{tmp_path}/data").replace("/var/backups", str(tmp_path))
    done = subprocess.run(
        ["bash", "-euc", script],
        env=clean_environment() | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "client_secret" in done.stdout


def test_the_variables_for_official_clients_can_be_evaluated() -> None:
    script = 'eval "$(muster env)"; echo "$GLOBUS_SDK_ENVIRONMENT"'
    done = subprocess.run(["bash", "-euc", script], env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "local\n"
