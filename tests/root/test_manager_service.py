"""A real service, a manager started as root by its command, and people with different accounts."""

from __future__ import annotations

from typing import Any

import pytest

from root.rules import ALICE, HARPER, Inside

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def story(inside: Inside) -> dict[str, Any]:
    told: dict[str, Any] = inside("manager_stage.py", {}, 180)
    return told


@pytest.mark.parametrize("account", [HARPER, ALICE], ids=lambda account: str(account["name"]))
def test_functions_run_as_the_persons_own_account(story: dict[str, Any], account: dict[str, Any]) -> None:
    assert story["seen"][account["name"]] == [account["uid"], account["uid"], account["groups"]]


def test_who_has_no_account_is_told_so(story: dict[str, Any]) -> None:
    assert "Identity failed to map to a local user name" in story["seen"]["eve"]["error"]


def test_a_killed_agent_is_replaced_and_work_goes_on(story: dict[str, Any]) -> None:
    assert story["after_the_agent_died"] == story["seen"]["harper"]
    assert "The agent ended (-9); user endpoints stay." in story["log"]
    assert story["log"].count("successfully forked for 'harper'") == 1


def test_the_banner_names_the_endpoint_and_stop_ends_everything_in_order(story: dict[str, Any]) -> None:
    assert story["banner"].startswith("    >>> Multi-User Endpoint ID: ")
    assert story["stopped"] == "Endpoint <debug_queue> is stopped.\n"
    assert story["status"] == 0
    assert story["log"].count("Command stopped normally") == 2


def test_the_monitor_keeps_no_login_secret_in_its_environment(story: dict[str, Any]) -> None:
    assert story["secrets_shown"] is False


def test_no_secret_is_shown_in_arguments_environments_or_the_log(story: dict[str, Any]) -> None:
    assert story["shown"] == []
