from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from muster.config import (
    ManagerConfig,
    is_single,
    load_manager,
    load_single,
    read_document,
    read_manager,
    read_single,
    read_user_endpoint,
)
from muster.errors import ConfigInvalid

FUNCTIONS = ["6d0ba55f-de15-4af2-827d-05c50c338aa7", "e552e7f2-c007-4671-8ca4-3a4fd84f3805"]
ENGINE = "engine: {type: ProcessPoolEngine}\n"


def manager(text: str) -> ManagerConfig:
    return read_manager(text, file="config.yaml", directory=Path("/etc/muster/prod"))


def refusal_of(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        manager(text)
    return caught.value.message()


def test_the_seeds_default_manager_file_loads(tmp_path: Path) -> None:
    text = "amqp_port: 443\ndisplay_name: null\nidentity_mapping_config_path: /x/map.json\nmulti_user: true\n"
    (tmp_path / "config.yaml").write_text(text)
    config = load_manager(tmp_path)
    assert config.multi_user is True
    assert config.amqp_port == 443
    assert config.identity_mapping_config_path == Path("/x/map.json")
    assert config.text == text
    assert config.template == tmp_path / "user_config_template.yaml"
    assert config.warnings == ()


def test_every_key_of_a_manager_arrives() -> None:
    config = manager(
        f"""
allowed_functions:
   - {FUNCTIONS[0]}
   - {FUNCTIONS[1]}
authentication_policy: 2340174a-1a0e-46d8-a958-7c3ddf2c834a
admins: [{FUNCTIONS[0]}]
public: true
email: harper@example.org
heartbeat_period: 5
pam: {{enable: true}}
audit_log_path: audit.log
mu_child_ep_grace_period_s: 10
min_uid: 2000
agent_user: muster-agent
"""
    )
    assert config.allowed_functions == tuple(map(UUID, FUNCTIONS))
    assert config.pam.enable
    assert config.pam.service_name == "globus-compute-endpoint"
    ignored = " ".join(config.warnings)
    assert all(f"{name} is ignored" in ignored for name in ("pam", "audit_log_path", "mu_child_ep_grace_period_s"))
    assert config.audit_log_path == Path("/etc/muster/prod/audit.log")
    assert (config.min_uid, config.agent_user, config.heartbeat_period) == (2000, "muster-agent", 5)


def test_a_key_without_meaning_here_is_a_warning() -> None:
    config = manager("detach_endpoint: true\nenvironment: dev\n")
    assert len(config.warnings) == 2
    assert "MUSTER_SERVICE_URL" in config.warnings[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("multi_usr: true", "line 1, column 1: multi_usr; unknown key; did you mean multi_user?"),
        ("debug: false\nheartbeat_period: soon", "line 2, column 1: heartbeat_period is 'soon'; it must be a number"),
        ("heartbeat_period: 0", "from 1 to 3600"),
        ("pam: {enabel: true}", "pam.enabel; unknown key; did you mean enable?"),
        ("pam: {service_name: ../x}", "/etc/pam.d"),
        ("allowed_functions: nope", "must be a list of ids"),
        ("allowed_functions: [nope]", "an id looks like"),
        ("display_name: 5", "put it in quotes"),
        ("public: 1", "true or false"),
        ("engine: {type: x}", "a manager runs no tasks"),
        ("min_uid: 0", "min_uid is 0; it must be at least 1"),
        ("agent_user: 'a b'", "name of an account"),
    ],
)
def test_a_wrong_key_is_told_with_its_place_and_the_fix(text: str, expected: str) -> None:
    assert expected in refusal_of(text)


def test_a_user_endpoint_has_the_seeds_defaults() -> None:
    config = read_user_endpoint(read_document(ENGINE, "f"))
    assert config.engine == {"type": "ProcessPoolEngine"}
    assert (config.heartbeat_period, config.heartbeat_threshold) == (30, 120)
    assert (config.idle_heartbeats_soft, config.idle_heartbeats_hard) == (0, 5760)
    assert config.endpoint_setup == ""


def test_paths_of_a_user_endpoint_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/harper")
    text = f"{ENGINE}paths: {{endpoint_dir: $SCRATCH/ep, endpoint_log: /var/log/x.log}}"
    config = read_user_endpoint(read_document(text, "f"))
    assert config.endpoint_dir == Path("/scratch/harper/ep")
    assert config.endpoint_log == Path("/var/log/x.log")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debug: true", "engine; it is missing"),
        (f"{ENGINE}high_assurance: true", "belongs in the manager's config.yaml"),
        (f"{ENGINE}idle_heartbeat_soft: 1", "did you mean idle_heartbeats_soft?"),
        (f"{ENGINE}idle_heartbeats_soft: 1.5", "whole number"),
        (f"{ENGINE}paths: {{log: x}}", "paths.log"),
        ("engine: process", "must be a block of keys"),
    ],
)
def test_a_wrong_user_endpoint_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read_user_endpoint(read_document(text, "f"))
    assert expected in caught.value.message()


def test_a_single_user_file_has_both_sides(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"{ENGINE}display_name: mine\npublic: true\nadmins: [{FUNCTIONS[0]}]\n")
    config = load_single(tmp_path)
    assert config.public
    assert config.endpoint.display_name == "mine"
    assert config.admins == (UUID(FUNCTIONS[0]),)


def test_a_file_with_an_engine_is_a_single_users() -> None:
    assert is_single(ENGINE, file="f")
    assert not is_single("multi_user: true", file="f")
    with pytest.raises(ConfigInvalid, match="a manager's file has none"):
        read_single(f"{ENGINE}multi_user: true", file="f")
