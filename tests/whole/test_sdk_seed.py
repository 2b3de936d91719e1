"""The specification's own examples, word for word but for the import line and the id, through a manager."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import Processes
from muster.testing.site import MAPPING, Manager, Site

pytestmark = [pytest.mark.root, pytest.mark.slow]
BLOCKS = re.findall(r"```python\n(.*?)```", Path(__file__).with_name("seed_examples.md").read_text(), re.DOTALL)
HELLO, HELLO_WITH_ACCOUNT, LOCAL_NAME, WITH_ACCOUNT, HUNDRED = BLOCKS
ID_LINE = re.compile(r'^(mep_id|mep_site_id|polaris_site_id) = ".*?"', re.MULTILINE)
TEMPLATE = """\
engine:
  type: ThreadPoolEngine
  max_workers: {{ NODES_PER_BLOCK|default(1) }}
idle_heartbeats_soft: 10
"""
SCHEMA = """\
{"type": "object", "additionalProperties": false, "properties": {
  "ACCOUNT_ID": {"type": "string"}, "account_id": {"type": "string"}, "NODES_PER_BLOCK": {"type": "integer"}}}
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="muster-seed-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            with Namespace(directory, network=False) as space, Processes(space) as processes:
                site = Site(directory, processes)
                site.serve()
                yield site
        except NamespaceRefusedError as why:
            if os.environ.get("CI"):
                pytest.fail(str(why))
            pytest.skip(str(why))


@pytest.fixture(scope="module")
def manager(site: Site) -> Manager:
    directory = site.configure("mep", "mickey97", "--multi-user")
    site.write(directory / "user_config_schema.json", SCHEMA)
    site.write(directory / "user_config_template.yaml", TEMPLATE)
    site.write(directory / "example_identity_mapping_config.json", json.dumps(MAPPING))
    return site.start(directory, "mickey97")


def run(site: Site, manager: Manager, block: str) -> str:
    """What the example prints, run by harper as the example stands."""
    script = ID_LINE.sub(rf'\1 = "{manager.id}"', block.replace("globus_compute_sdk", "muster"))
    assert manager.id in script
    file = site.directory / "example.py"
    file.write_text(script)
    return site.processes.run([sys.executable, str(file)], site.person("harper"), account="harper", patience_s=60)


@pytest.mark.parametrize("block", [HELLO, HELLO_WITH_ACCOUNT], ids=["plain", "with its account"])
def test_hello_says_where_it_ran(site, manager, block):
    assert re.fullmatch(r"Hello, Obi-Wan; I ran on \S+\n", run(site, manager, block))


def test_the_account_example_prints_its_result(site, manager):
    assert run(site, manager, WITH_ACCOUNT) == "Result: 1\n"


def test_a_hundred_tasks_give_a_hundred_results(site, manager):
    lines = run(site, manager, HUNDRED).splitlines()
    assert len(lines) == 100
    assert {int(re.match(r"Result: \((\d+), ", line)[1]) for line in lines} == set(range(100))


def test_the_example_that_names_a_local_variable_runs_once_it_names_the_executors(site, manager):
    corrected = LOCAL_NAME.replace("    endpoint_id = mep_site_id", "    ex.endpoint_id = mep_site_id")
    assert corrected != LOCAL_NAME
    assert run(site, manager, corrected) == "Result: 1\n"
