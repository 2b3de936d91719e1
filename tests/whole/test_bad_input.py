"""Bad input: a clear error in the user's exception or on the administrator's terminal, within ten seconds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import BIN, Processes, StageError
from muster.testing.site import TEMPLATE, Manager, Site
from muster.wire.rest import PROJECTS_SCOPE

pytestmark = [pytest.mark.root, pytest.mark.slow]
MISUSE = Path(__file__).with_name("misuse.py")
PATIENCE_S = 10
NOISE = re.compile(r"Traceback|\bpika|asyncio|urllib|AMQP\w*Error|Errno|exit code")
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
    """The researcher's error: in time, one exception and no chain of them, in words of ours."""
    command = [sys.executable, str(MISUSE), case, endpoint, *([json.dumps(config)] if config is not None else [])]
    out = site.processes.run(command, site.person(person) | env, account=site.operator)
    error = json.loads(out.splitlines()[-1])
    assert error["seconds"] < PATIENCE_S, error
    assert not NOISE.search(error["text"]), error["text"]
    assert "another exception" not in error["shown"], error["shown"]
    assert "direct cause" not in error["shown"], error["shown"]
    return error


def refused(site: Site, directory: Path, *, account: str | None = None) -> str:
    """The one sentence that `start` leaves on the administrator's terminal when it refuses."""
    environment = site.person("mickey97") | {"MUSTER_HOME": str(directory.parent)}
    with pytest.raises(StageError) as failed:
        start = [str(BIN / "muster-endpoint"), "start", directory.name]
        site.processes.run(start, environment, account=account, patience_s=PATIENCE_S)
    said = str(failed.value).partition(": ")[2].strip()
    assert said.startswith("Error: "), said
    assert len(said.splitlines()) == 1, said
    assert not NOISE.search(said), said
    return said


def answer(site: Site, path: str, token: str | None = None, data: bytes | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        with urlopen(Request(site.url + path, data, headers), timeout=PATIENCE_S) as got:
            return got.status, json.load(got)
    except HTTPError as why:
        with why:
            return why.code, json.load(why)


def token_of(site: Site, person: str, scope: str) -> str:
    pair = site.person(person)
    form = f"grant_type=client_credentials&scope={scope}&client_id={pair['MUSTER_CLIENT_ID']}"
    status, document = answer(
        site, "/v2/oauth2/token", data=f"{form}&client_secret={pair['MUSTER_CLIENT_SECRET']}".encode()
    )
    assert status == 200, document
    return str(document["access_token"])


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_unknown_endpoint_is_named(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "unknown_endpoint", manager.id)
    assert re.search(r"Endpoint [0-9a-f-]{36} could not be resolved", error["text"])


def test_an_unknown_function_is_named(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "unknown_function", manager.id)
    assert re.search(r"Function [0-9a-f-]{36} could not be resolved", error["text"])


def test_an_unknown_task_is_named(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "task_of_another", manager.id)
    assert re.search(r"Task [0-9a-f-]{36} could not be resolved", error["text"])


def test_a_missing_template_key_is_named(site: Site, strict: Manager) -> None:
    error = told(site, "harper", "submit", strict.id)
    assert error["text"].count("could not start") == 1
    assert "line 7: the template needs ACCOUNT_ID; give it in user_endpoint_config" in error["text"]
    assert error["code"] == "START_FAILED"


def test_a_value_that_the_schema_refuses_is_named(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "submit", manager.id, {"workers": 99})
    assert error["text"].count("could not start") == 1
    assert "user_endpoint_config.workers: 99 is greater than the maximum of 4" in error["text"]


def test_after_a_refused_value_a_good_one_runs(site: Site, manager: Manager) -> None:
    told(site, "harper", "submit", manager.id, {"workers": 98})
    assert told(site, "harper", "submit", manager.id, {"workers": 1})["type"] == "NoneType"


def test_an_identity_that_maps_to_nobody_is_told_so(site: Site) -> None:
    directory = site.configure("closed", "mickey97", "--multi-user")  # its mapping is the example: nobody fits
    site.write(directory / "user_config_template.yaml", TEMPLATE)
    error = told(site, "harper", "submit", site.start(directory, "mickey97").id)
    assert "Identity failed to map to a local user name. Ask the endpoint's administrator" in error["text"]
    assert error["code"] == "IDENTITY_UNMAPPED"


def test_an_identity_that_maps_to_root_is_refused(site: Site, manager: Manager) -> None:
    error = told(site, "alice", "submit", manager.id)
    assert "belongs to the system" in error["text"]
    assert "root" in (manager.directory / "endpoint.log").read_text()


def test_an_identity_that_maps_to_a_missing_account_is_refused(site: Site, manager: Manager) -> None:
    error = told(site, "mickey97", "submit", manager.id)
    assert "local user does not exist" in error["text"]
    assert "nosuchaccount" not in error["text"]
    assert "nosuchaccount" in (manager.directory / "endpoint.log").read_text()


def test_a_payload_of_20_mb_fails_alone(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "large_payload", manager.id)
    assert re.search(r"This call, with its arguments, has \d+ bytes; the limit is \d+", error["text"])


def test_a_wrong_secret_says_how_to_log_in(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "submit", manager.id, MUSTER_CLIENT_SECRET="not the one")
    assert "wrong secret" in error["text"]
    assert "MUSTER_CLIENT_SECRET" in error["text"]


def test_nobody_who_is_logged_in_says_how_to_log_in(site: Site, manager: Manager) -> None:
    error = told(site, "harper", "submit", manager.id, MUSTER_CLIENT_SECRET="")
    assert "Run `muster login`" in error["text"]


def test_a_request_without_a_token_is_told_to_log_in(site: Site) -> None:
    status, document = answer(site, "/v2/endpoints")
    assert (status, document["code"]) == (401, "AUTHENTICATION_FAILED")
    assert "Log in first" in document["message"]


def test_a_revoked_token_is_told_to_log_in(site: Site) -> None:
    token = token_of(site, "harper", "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all")
    assert answer(site, "/v2/endpoints", token)[0] == 200
    pair = site.person("harper")
    form = f"token={token}&client_id={pair['MUSTER_CLIENT_ID']}&client_secret={pair['MUSTER_CLIENT_SECRET']}"
    assert answer(site, "/v2/oauth2/token/revoke", data=form.encode())[0] == 200
    status, document = answer(site, "/v2/endpoints", token)
    assert (status, document["code"]) == (401, "AUTHENTICATION_FAILED")


def test_a_token_for_another_scope_is_not_permitted(site: Site) -> None:
    token = token_of(site, "harper", f"openid+{PROJECTS_SCOPE}")
    status, document = answer(site, "/v2/endpoints", token)
    assert (status, document["code"]) == (403, "FORBIDDEN")
    assert "scope" in document["message"] or "token" in document["message"]


@pytest.mark.parametrize(
    ("file", "text", "needles"),
    [
        ("config.yaml", "identity_mapping_config_path: example_identity_mapping_config.json\nx: [open\n", ["line "]),
        ("config.yaml", "identity_maping_config_path: /x\n", ["identity_mapping_config_path is missing"]),
        (
            "config.yaml",
            "identity_mapping_config_path: example_identity_mapping_config.json\nheartbeat_perod: 5\n",
            ["line 2", "heartbeat_perod", "did you mean heartbeat_period?"],
        ),
        ("config.yaml", "identity_mapping_config_path: nothing.json\n", ["nothing.json", "no such file"]),
        ("example_identity_mapping_config.json", "[{", ["line 1, column 3"]),
        ("example_identity_mapping_config.json", "{}", ["must be a JSON list"]),
        ("example_identity_mapping_config.json", '[{"mappings": []}]', ["entry 1", "'DATA_TYPE' is missing"]),
        (
            "example_identity_mapping_config.json",
            json.dumps([{**MAPPING[0], "mappings": [{"source": "{username}", "match": "(", "output": "{0}"}]}]),
            ["entry 1", "unterminated"],
        ),
        (
            "example_identity_mapping_config.json",
            '[{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/no/such/program"]}]',
            ["entry 1", "/no/such/program"],
        ),
        ("user_config_schema.json", '{"properties":\n  {', ["line 2", "not JSON"]),
        ("user_config_schema.json", '{"properties": {"NODES": {"type": "intger"}}}', ["NODES.type", "intger"]),
        ("user_config_template.yaml", "engine:\n  type: {{ unclosed\n", ["line 2"]),
        ("user_config_template.yaml", "engine: {type: {{ X|no_such_filter }}}\n", ["line 1", "no_such_filter"]),
        ("user_config_template.yaml", "display_name: x\n", ["engine", "missing"]),
        ("user_environment.yaml", "FIRST: 1\nA: {nested: true}\n", ["line 2", "A must be one value"]),
    ],
)
def test_a_broken_file_stops_the_start_naming_file_and_place(
    site: Site, request: pytest.FixtureRequest, file: str, text: str, needles: list[str]
) -> None:
    directory = site.configure(f"broken-{abs(hash(request.node.name))}", "mickey97", "--multi-user")
    site.write(directory / file, text)
    said = refused(site, directory)
    for needle in [file, *needles]:
        assert needle in said
    assert not (directory / "root.json").exists()
    assert not list((directory / "agent").iterdir()) if (directory / "agent").exists() else True


def test_a_broken_single_user_file_stops_the_start(site: Site) -> None:
    directory = site.configure("broken-single", "harper", "--multi-user", "false", account="harper")
    site.write(directory / "config.yaml", "engine:\n  type: ProcesPoolEngine\n", "harper")
    said = refused(site, directory, account="harper")
    assert "ProcessPoolEngine" in said


def test_a_service_that_is_down_is_named_to_the_administrator(site: Site) -> None:
    directory = site.configure("early", "mickey97", "--multi-user")
    url = f"http://127.0.0.1:{closed_port()}"
    environment = site.person("mickey97") | {"MUSTER_HOME": str(directory.parent), "MUSTER_SERVICE_URL": url}
    with pytest.raises(StageError) as failed:
        start = [str(BIN / "muster-endpoint"), "start", "early"]
        site.processes.run(start, environment, patience_s=PATIENCE_S)
    said = str(failed.value).partition(": ")[2].strip()
    assert said == f"Error: The service at {url} (connection refused) cannot be reached at the moment; try again."
    assert not (directory / "root.json").exists()


def test_a_service_that_is_down_is_named_to_the_researcher(site: Site, manager: Manager) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    error = told(site, "harper", "submit", manager.id, MUSTER_SERVICE_URL=url)
    assert f"The service at {url} (connection refused) cannot be reached" in error["text"]


def test_a_broker_that_is_down_is_named_and_the_result_comes_all_the_same(site: Site, manager: Manager) -> None:
    port = closed_port()
    command = [sys.executable, str(MISUSE), "blocked_broker", manager.id]
    running = site.processes.start(
        "the researcher", command, site.person("harper") | {"CLOSED_PORT": str(port)}, account=site.operator
    )
    warning = running.wait_for("broker", PATIENCE_S)
    assert f"127.0.0.1:{port}: connection refused" in warning
    assert not NOISE.search(warning)
    assert "the result came after" in running.wait_for("the result came", 60)
    assert not [line for line in running.lines if NOISE.search(line) and "shown" not in line]


def test_a_manager_told_of_a_closed_broker_says_so_on_the_terminal(site: Site, tmp_path: Path) -> None:
    """The API is open and the broker's port is not: a firewall, most likely."""
    port = closed_port()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-closed-")))
        directory.chmod(0o755)
        processes = stack.enter_context(Processes(site.processes.space))
        walled = Site(directory, processes)
        walled.serve("--amqp-public", f"amqp://127.0.0.1:{port}/")
        manager = walled.manager("walled", "mickey97")
        warning = manager.process.wait_for("Warning: ", PATIENCE_S)
        assert f"The broker cannot be reached (127.0.0.1:{port}: connection refused)" in warning
        single = walled.configure("alone", "harper", "--multi-user", "false", account="harper")
        environment = walled.person("harper") | {"MUSTER_HOME": str(single.parent)}
        start = [str(BIN / "muster-endpoint"), "start", "alone"]
        alone = processes.start("alone", start, environment, account="harper")
        assert f"127.0.0.1:{port}: connection refused" in alone.wait_for("Warning: ", PATIENCE_S)
        logs = (manager.directory / "endpoint.log").read_text() + (single / "endpoint.log").read_text()
        assert not NOISE.search(logs), logs


def test_what_belongs_to_a_user_is_closed_to_everybody_else(site: Site, manager: Manager) -> None:
    told(site, "harper", "submit", manager.id, {"workers": 1})
    home = site.processes.space.people["harper"].home if site.processes.space else Path.home()
    files = [path for path in (home / ".muster").rglob("*") if not path.is_symlink()]
    assert [path for path in files if path.name == "endpoint.log"]
    open_ones = [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077 and not _in_closed(path, home)]
    assert not open_ones
    for log in (path for path in files if path.name == "endpoint.log"):
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert not NOISE.search(log.read_text()), log.read_text()


def test_what_belongs_to_the_site_is_closed_to_everybody_else(site: Site) -> None:
    manager = site.manager("private", "mickey97")  # its own: others change the files of the shared ones
    deadline = time.monotonic() + 20
    while not (manager.directory / "root.json").exists() and time.monotonic() < deadline:  # the banner may come first
        time.sleep(0.05)
    assert stat.S_IMODE((manager.directory / "root.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((manager.directory / "agent").stat().st_mode) == 0o700
    assert stat.S_IMODE(manager.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(site.data.stat().st_mode) == 0o700
    assert not [path for path in site.data.glob("*.db*") if stat.S_IMODE(path.stat().st_mode) & 0o077]


def _in_closed(path: Path, home: Path) -> bool:
    """What lies in a directory that nobody else may enter is closed, whatever its own mode."""
    between = [parent for parent in path.parents if parent.is_relative_to(home) and parent != home]
    return any(not stat.S_IMODE(parent.stat().st_mode) & 0o077 for parent in between)
