"""A manager at a terminal: its clock, the ways to stop it, and what is left."""

from __future__ import annotations

from typing import Any

import pytest

from root.rules import Inside

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def runs(inside: Inside) -> dict[str, Any]:
    told: dict[str, Any] = inside("terminal_stage.py", {}, 120)
    return told


@pytest.mark.parametrize("number", ["SIGINT", "SIGQUIT", "SIGTERM"])
def test_each_way_to_stop_ends_it_cleanly(runs: dict[str, Any], number: str) -> None:
    assert runs[number]["status"] == 0
    assert runs[number]["left"] == []


def test_the_clock_ticks_on_a_terminal_only(runs: dict[str, Any]) -> None:
    assert "\r----> " in runs["SIGINT"]["said"]
    assert "---->" not in runs["SIGTERM"]["said"]


def test_a_restart_ends_one_and_starts_one_and_no_two_run_at_once(runs: dict[str, Any]) -> None:
    assert (runs["restart"]["first"], runs["restart"]["second"]) == (0, 0)
    assert "already running" in runs["restart"]["third"]
    assert runs["restart"]["left"] == []


def test_who_interrupts_the_login_leaves_nobody_at_the_terminal(runs: dict[str, Any]) -> None:
    assert runs["login"]["asked"]
    assert runs["login"]["status"] != 0
    assert runs["login"]["left"] == []
