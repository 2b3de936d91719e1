"""`muster-endpoint` on a directory of its own: what it writes, says and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from muster.cli.endpoint import muster_endpoint
from muster.cli.local import LocalEndpoint
from muster.errors import Conflict


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: str) -> Result:
    return CliRunner().invoke(muster_endpoint, list(words))


def test_the_seeds_five_files_and_its_message(home: Path) -> None:
    done = run("configure", "debug_queue", "--multi-user")
    place = home / "debug_queue"
    assert done.exit_code == 0
    assert done.output.splitlines()[:11] == [
        "Created multi-user profile for endpoint named <debug_queue>",
        "",
        f"    Configuration file: {place}/config.yaml",
        "",
        f"    Example identity mapping configuration: {place}/example_identity_mapping_config.json",
        "",
        f"    User endpoint configuration template: {place}/user_config_template.yaml",
        f"    User endpoint configuration schema: {place}/user_config_schema.json",
        f"    User endpoint environment variables: {place}/user_environment.yaml",
        "",
        "Use the `start` subcommand to run it:",
    ]
    assert done.output.rstrip().endswith("muster-endpoint start debug_queue")
    assert (place / "config.yaml").read_text() == (
        "amqp_port: 443\ndisplay_name: null\n"
        f"identity_mapping_config_path: {place}/example_identity_mapping_config.json\nmulti_user: true\n"
    )
    assert sorted(path.name for path in place.iterdir()) == [
        "config.yaml",
        "example_identity_mapping_config.json",
        "user_config_schema.json",
        "user_config_template.yaml",
        "user_environment.yaml",
    ]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (place, *place.iterdir()))


def test_the_flag_may_stand_before_the_name_and_take_a_word(home: Path) -> None:
    assert run("configure", "--multi-user", "prod_gpu_large").exit_code == 0
    assert run("configure", "--multi-user", "true", "second").exit_code == 0
    assert run("configure", "--multi-user", "false", "third").exit_code == 0
    assert run("configure", "--multi-user=no", "fourth").exit_code == 0
    kinds = {name: LocalEndpoint.existing(name).single_user for name in ("prod_gpu_large", "second", "third", "fourth")}
    assert kinds == {"prod_gpu_large": False, "second": False, "third": True, "fourth": True}


def test_the_new_files_are_understood_by_those_who_read_them(home: Path) -> None:
    from muster.config import load_manager, load_single
    from muster_root.site import MAPPING_KEY, scan

    run(
        "configure",
        "shared",
        "--multi-user",
        "--display-name",
        "A: tricky # name",
        "--auth-policy",
        "2" * 8 + "-0000-4000-8000-000000000000",
    )
    run("configure", "mine", "--multi-user", "no", "--display-name", "it's mine")
    config = load_manager(home / "shared")
    assert config.display_name == "A: tricky # name"
    assert str(config.authentication_policy).startswith("22222222")
    values = scan((home / "shared/config.yaml").read_text(), "config.yaml")
    assert values[MAPPING_KEY] == str(home / "shared/example_identity_mapping_config.json")
    assert yaml.safe_load((home / "mine/config.yaml").read_text())["display_name"] == "it's mine"
    load_single(home / "mine")


def test_files_can_be_brought_along(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("own: content\n")
    flags = ("--id-mapping-config", "--template-config", "--schema-config", "--user-env-config", "--core-config")
    words = [word for flag in flags for word in (flag, str(own))]
    assert run("configure", "mine", "--multi-user", *words).exit_code == 0
    assert {path.read_text() for path in (home / "mine").iterdir()} == {"own: content\n"}


def test_what_exists_is_left_alone(home: Path) -> None:
    run("configure", "mine", "--multi-user")
    (home / "mine/config.yaml").write_text("multi_user: true\n")
    again = run("configure", "mine", "--multi-user")
    assert again.exit_code == 69
    assert "exists already" in again.output
    assert (home / "mine/config.yaml").read_text() == "multi_user: true\n"


@pytest.mark.parametrize("name", [".hidden", "a/b", "a b", "it's", 'a"b', "x" * 129, "a\\b"])
def test_names_that_would_be_trouble_are_refused(home: Path, name: str) -> None:
    refused = run("configure", name, "--multi-user")
    assert refused.exit_code == 65
    assert not home.exists()


def test_what_is_not_there_is_said_with_the_way_to_make_it(home: Path) -> None:
    for command in ("start", "stop", "restart"):
        refused = run(command, "missing")
        assert refused.exit_code == 69
        assert "muster-endpoint configure missing" in refused.output


@pytest.fixture
def running(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the endpoint's lock, as a monitor does."""
    run("configure", "mine", "--multi-user")
    hold = (
        "from muster.cli.local import LocalEndpoint\n"
        "LocalEndpoint.named('mine').lock()\n"
        "print('locked', flush=True)\n"
        "import signal; signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_kernel_knows_who_runs_it(home: Path, running: subprocess.Popen[bytes]) -> None:
    (home / "mine/root.json").write_text(json.dumps({"endpoint_id": "4ade2ce0-9c00-4d8c-b996-4dff8fbb4bd0"}))
    endpoint = LocalEndpoint.existing("mine")
    assert endpoint.holder() == running.pid
    with pytest.raises(Conflict, match="already running"):
        endpoint.lock()
    assert json.loads(run("list", "--json").output) == [
        {"name": "mine", "status": "Running", "endpoint_id": "4ade2ce0-9c00-4d8c-b996-4dff8fbb4bd0"}
    ]
    assert run("delete", "mine", "--yes").exit_code == 69
    assert run("stop", "mine").exit_code == 0
    running.wait(10)
    assert endpoint.status == "Stopped"
    assert "is not running" in run("stop", "mine").output


def test_a_new_endpoint_is_initialized_and_can_be_deleted(home: Path) -> None:
    run("configure", "mine", "--multi-user")
    assert [endpoint.status for endpoint in LocalEndpoint.every()] == ["Initialized"]
    assert run("delete", "mine", "--yes").exit_code == 0
    assert not (home / "mine").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs an account for the agent")
def test_root_is_told_how_to_make_the_agents_account(home: Path) -> None:
    run("configure", "mine", "--multi-user")
    home.parent.chmod(0o700)
    with (home / "mine/config.yaml").open("a") as file:
        file.write("agent_user: no_such_account\n")
    refused = run("start", "mine")
    assert refused.exit_code == 70
    assert "useradd --system" in refused.output
    assert "no_such_account" in refused.output


def test_a_detached_start_imports_nothing_from_where_it_stands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may stand in a directory that others fill."""
    hostile = tmp_path / "hostile"
    for name in ("muster", "json", "click"):
        (hostile / name).mkdir(parents=True)
        (hostile / name / "__init__.py").write_text(f"open({str(tmp_path / 'taken')!r}, 'w')")
    run("configure", "mine", "--multi-user")
    (home / "mine/config.yaml").write_text("min_uid: [1]\n")
    monkeypatch.chdir(hostile)
    assert run("start", "mine", "--detach").exit_code != 0
    assert not (tmp_path / "taken").exists()


def test_nothing_is_made_in_a_place_that_others_could_change(home: Path) -> None:
    run("configure", "mine", "--multi-user")
    (home / "mine").chmod(0o777)
    refused = run("start", "mine")
    assert refused.exit_code == 78
    assert "could be changed by others" in refused.output
    assert not {"lock", "agent", "endpoint.log"} & {path.name for path in (home / "mine").iterdir()}


def test_what_the_agents_get_of_our_environment_cannot_be_changed_by_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from muster.cli.launch import _environment

    monkeypatch.setenv("MUSTER_CLIENT_SECRET", "s3cret")
    fd = _environment(debug=False)
    try:
        assert b"MUSTER_CLIENT_SECRET=s3cret" in os.pread(fd, 1000, 0)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other accounts")
def test_whoever_runs_as_the_agent_without_being_one_is_a_stranger() -> None:
    from muster.cli.strangers import expect_none, strangers
    from muster.errors import EndpointNotStarted

    nobody = 65534
    before = set(strangers(nobody))
    orphan = (
        "import os, sys, time\nif os.fork(): sys.exit()\nos.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    left = subprocess.Popen(
        [sys.executable, "-c", orphan], stdout=subprocess.PIPE, text=True, user=nobody, group=nobody
    )
    with left:
        assert left.stdout is not None
        pid = int(left.stdout.readline())
        try:
            assert set(strangers(nobody)) - before == {pid}
            with pytest.raises(EndpointNotStarted, match="pkill -KILL -u nobody"):
                expect_none(nobody, patience_s=0.3)
        finally:
            os.kill(pid, signal.SIGKILL)


def test_a_program_for_the_mapping_that_others_could_change_is_refused(tmp_path: Path) -> None:
    """Root runs it."""
    from muster.cli.mapping import check_mapping
    from muster.errors import ConfigInvalid
    from muster_root.site import Site, Unusable

    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    (tmp_path / "config.yaml").write_text("identity_mapping_config_path: map.json\n")
    entry = {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(program)]}
    (tmp_path / "map.json").write_text(json.dumps([entry]))
    with pytest.raises(Unusable, match="could be changed by others"):
        check_mapping(Site(str(tmp_path)))
    (tmp_path / "config.yaml").write_text("multi_user: true\n")
    with pytest.raises(ConfigInvalid, match="who becomes whom"):
        check_mapping(Site(str(tmp_path)))
