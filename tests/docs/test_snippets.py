"""Every ```python run block of the guides runs, in order, and prints what the ```text block after it says."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import Processes
from muster.testing.site import Manager, Site

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE_ID = "6d0ba55f-de15-4af2-827d-05c50c338aa7"
BLOCK = re.compile(r"^```python run\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
BETWEEN = "=== end of block"
TEMPLATE = """\
engine:
  type: ProcessPoolEngine
  max_workers: {{ NODES_PER_BLOCK|default(2) }}
idle_heartbeats_soft: 10
"""
SCHEMA = """\
{"type": "object", "additionalProperties": false, "properties": {
  "ACCOUNT_ID": {"type": "string"}, "NODES_PER_BLOCK": {"type": "integer"}}}
"""


@dataclass(frozen=True)
class Snippet:
    line: int
    code: str
    prints: str | None


def snippets(document: Path) -> list[Snippet]:
    text = document.read_text()
    return [Snippet(text[: found.start()].count("\n") + 1, found[1], found[2]) for found in BLOCK.finditer(text)]


WITH_SNIPPETS = [document for document in sorted(DOCS.glob("*.md")) if snippets(document)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-docs-")))
        directory.chmod(0o755)
        space = None
        if os.geteuid() == 0:  # an endpoint of root's own would run everything as root
            try:
                space = stack.enter_context(Namespace(directory, network=False))
            except NamespaceRefusedError as why:
                pytest.skip(str(why))
        site = Site(directory, stack.enter_context(Processes(space)))
        site.serve()
        yield site


@pytest.fixture(scope="module")
def account(site: Site) -> str | None:
    return "harper" if site.processes.space else None


@pytest.fixture(scope="module")
def manager(site: Site, account: str | None) -> Manager:
    directory = site.configure("guide", "harper", "--multi-user", "true", account=account)
    template = next(directory.glob("user_config_template.yaml*"))
    site.write(template, TEMPLATE, account)
    site.write(directory / "user_config_schema.json", SCHEMA, account)
    return site.start(directory, "harper", account=account)


def matches(said: str, expected: str) -> bool:
    """`…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def test_the_researchers_guide_has_snippets():
    assert "researcher.md" in {document.name for document in WITH_SNIPPETS}


@pytest.mark.parametrize("document", WITH_SNIPPETS, ids=lambda document: document.name)
def test_the_snippets_print_what_the_guide_says(document, site, manager, account):
    wanted = snippets(document)
    script = f"\nprint({BETWEEN!r}, flush=True)\n".join(snippet.code for snippet in wanted)
    file = site.directory / f"{document.stem}.py"
    file.write_text(script.replace(EXAMPLE_ID, manager.id))
    told = site.processes.run([sys.executable, str(file)], site.person("harper"), account=account, patience_s=120)
    wrong = [
        f"{document.name}, line {snippet.line}: printed\n{said}\nand not\n{snippet.prints}"
        for snippet, said in zip(wanted, told.split(f"{BETWEEN}\n"), strict=True)
        if snippet.prints is not None and not matches(said, snippet.prints)
    ]
    assert not wrong, "\n\n".join(wrong)
