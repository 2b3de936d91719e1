"""Bad input: a clear error in the user's exception or on the administrator's terminal, within ten seconds."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import BIN, Processes, StageError
from muster.testing.site import TEMPLATE, Manager, Site

pytestmark = [pytest.mark.root, pytest.mark.slow]
MISUSE = Path(__file__).with_name("misuse.py")
MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [
            {"source": "{username}", "match": "alice@example\\.org", "output": "root"},
            {"source": "{username}", "match": "mickey97@example\\.org", "output": "nosuchaccount"},
            {"source": "{username}", "match": "harper@example\\.org", "output": "harper"},
        ],
    }
]
SCHEMA = {"type": "object", "properties": {"workers": {"type": "integer", "maximum": 4}}, "additionalProperties": True}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="muster-bad-input-") as name:
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
    directory = site.configure("picky", "mickey97", "--multi-user")
    site.write(directory / "example_identity_mapping_config.json", json.dumps(MAPPING))
    site.write(directory / "user_config_schema.json", json.dumps(SCHEMA))
    site.write(directory / "user_config_template.yaml", TEMPLATE + "display_name: {{ shown|default('x') }}\n")
    return site.start(directory, "mickey97")


@pytest.fixture(scope="module")
def strict(site: Site) -> Manager:
    """Its template needs a key."""
    return site.manager("strict", "mickey97", template=TEMPLATE + "display_name: {{ ACCOUNT_ID }}\n")


def told(site: Site, person: str, case: str, endpoint: str, config: dict | None = None, **env: str) -> dict[str, Any]:
    command = [sys.executable, str(MISUSE), case, endpoint, *([json.dumps(config)] if config is not None else [])]
    out = site.processes.run(command, site.person(person) | env, account=site.operator)
    error = json.loads(out.splitlines()[-1])
    assert error["seconds"] < 10, error
    assert "Traceback" not in error["text"]
    return error


def test_an_unknown_endpoint_is_named(site: Site, manager: Manager) -> None:
    assert "No such endpoint" in told(site, "harper", "unknown_endpoint", manager.id)["text"]


def test_an_unknown_function_is_named(site: Site, manager: Manager) -> None:
    assert "No such function" in told(site, "harper", "unknown_function", manager.id)["text"]


def test_a_missing_template_key_is_named(site: Site, strict: Manager) -> None:
    error = told(site, "harper", "submit", strict.id)
    assert "ACCOUNT_ID" in error["text"]
    assert error["code"] == "START_FAILED"


def test_a_value_that_the_schema_refuses_is_named(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "submit", manager.id, {"workers": 99})
    assert "workers" in error["text"]
    assert "99" in error["text"]


def test_an_identity_that_maps_to_nobody_is_told_so(site: Site) -> None:
    directory = site.configure("closed", "mickey97", "--multi-user")  # its mapping is the example: nobody fits
    site.write(directory / "user_config_template.yaml", TEMPLATE)
    error = told(site, "harper", "submit", site.start(directory, "mickey97").id)
    assert "Identity failed to map to a local user name" in error["text"]
    assert error["code"] == "IDENTITY_UNMAPPED"


def test_an_identity_that_maps_to_root_is_refused(site: Site, manager: Manager) -> None:
    error = told(site, "alice", "submit", manager.id)
    assert "account" in error["text"]
    log = (manager.directory / "endpoint.log").read_text()
    assert "root" in log


def test_an_identity_that_maps_to_a_missing_account_is_refused(site: Site, manager: Manager) -> None:
    error = told(site, "mickey97", "submit", manager.id)
    assert "local user does not exist" in error["text"]
    assert "nosuchaccount" not in error["text"]
    assert "nosuchaccount" in (manager.directory / "endpoint.log").read_text()


def test_a_payload_of_20_mb_fails_alone(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "large_payload", manager.id)
    assert "limit" in error["text"]


def test_a_wrong_secret_says_how_to_log_in(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "submit", manager.id, MUSTER_CLIENT_SECRET="not the one")
    assert "MUSTER_CLIENT_SECRET" in error["text"] or "credentials" in error["text"].lower()


@pytest.mark.parametrize(
    ("file", "text", "needle"),
    [
        ("config.yaml", "display_name: [unclosed\n", "line"),
        ("config.yaml", "multi_user: true\nidentity_maping_config_path: /x\n", "identity_mapping_config_path"),
        ("example_identity_mapping_config.json", "[{", "line"),
        ("user_config_schema.json", "{", "line"),
        ("user_config_template.yaml", "engine: {{ unclosed\n", "line"),
        ("user_environment.yaml", "A: {nested: true}\n", "user_environment.yaml"),
    ],
)
def test_a_broken_file_stops_the_start_naming_file_and_place(site: Site, file: str, text: str, needle: str) -> None:
    directory = site.configure(f"broken{abs(hash((file, text)))}", "mickey97", "--multi-user")
    site.write(directory / file, text)
    environment = site.person("mickey97") | {"MUSTER_HOME": str(directory.parent)}
    with pytest.raises(StageError) as failed:
        site.processes.run([str(BIN / "muster-endpoint"), "start", directory.name], environment, patience_s=10)
    assert file in str(failed.value)
    assert needle in str(failed.value)
    assert "Traceback" not in str(failed.value)
