"""kill -9 of any process in the middle of 500 tasks: every future ends, once, in its result or in a named error."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import Processes, Running
from muster.testing.site import Manager, Site

pytestmark = [pytest.mark.root, pytest.mark.slow]
CROWD = Path(__file__).with_name("crowd.py")
TASKS = 500


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="muster-kill-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            with Namespace(directory, network=False) as space, Processes(space) as processes:
                site = Site(directory, processes)
                yield site
        except NamespaceRefusedError as why:
            if os.environ.get("CI"):
                pytest.fail(str(why))
            pytest.skip(str(why))


def crowd(site: Site, manager: Manager) -> Running:
    command = [sys.executable, str(CROWD), manager.id, str(TASKS)]
    return site.processes.start("the crowd", command, site.person("harper"), account="alice")


def part(manager: Manager, mark: str) -> int:
    """The process of this manager whose command line says so; waits until there is one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in psutil.Process(manager.process.process.pid).children(recursive=True):
            try:
                if mark in " ".join(child.cmdline()):
                    return child.pid
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)
    raise AssertionError(f"no process says {mark}")


def outcome(running: Running) -> dict[str, dict[str, int]]:
    told = json.loads(running.wait_for("told ", 240).removeprefix("told "))
    assert told["twice"] == []
    assert sum(told["ended"].values()) == TASKS
    assert "wrong" not in told["ended"]
    return told["ended"]


def test_a_killed_service_that_comes_back_loses_nothing(site: Site) -> None:
    service = site.serve()
    manager = site.manager("kill", "mickey97")
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    service.kill()
    site.serve()
    assert outcome(running) == {"result": TASKS}


def test_a_killed_agent_is_replaced_and_nothing_is_lost(site: Site) -> None:
    site.serve()
    manager = site.manager("kill", "mickey97")
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    before = part(manager, "muster.manager")
    os.kill(before, signal.SIGKILL)
    assert outcome(running) == {"result": TASKS}
    assert part(manager, "muster.manager") != before


def test_a_killed_user_endpoint_is_replaced_and_only_running_tasks_end_in_an_error(site: Site) -> None:
    site.serve()
    manager = site.manager("kill", "mickey97")
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    os.kill(part(manager, "muster: user endpoint"), signal.SIGKILL)
    ended = outcome(running)
    assert set(ended) <= {"result", "UserEndpointLost"}
    # What had been handed to two workers may be lost; what waited must not be.
    assert ended["result"] >= TASKS - 20


def test_a_killed_worker_costs_the_task_it_ran(site: Site) -> None:
    site.serve()
    manager = site.manager("kill", "mickey97")
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    os.kill(part(manager, "muster.worker"), signal.SIGKILL)
    ended = outcome(running)
    assert ended in ({"result": TASKS}, {"result": TASKS - 1, "WorkerLost": 1})


def test_a_killed_monitor_ends_every_task_with_a_result_or_the_cause(site: Site) -> None:
    site.serve("--offline-grace", "5")
    manager = site.manager("kill", "mickey97", config="heartbeat_period: 5\n")
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    manager.process.kill()
    ended = outcome(running)
    assert set(ended) <= {"result", "EndpointOffline", "UserEndpointLost"}
