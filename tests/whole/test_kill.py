"""kill -9 of any process in the middle of 500 tasks: every future ends, once, in its result or in a named error."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from muster.testing.processes import Running
from muster.testing.site import TEMPLATE, Manager, Site

pytestmark = [pytest.mark.root, pytest.mark.slow]
CROWD = Path(__file__).with_name("crowd.py")
TASKS = 500
AGENT, ENDPOINT, WORKER = "muster.manager.agent", "muster: user endpoint", "muster.worker"
T = TypeVar("T")


@pytest.fixture
def site(shared_site: Site) -> Site:
    return shared_site


def until(look: Callable[[], T | None], what: str, patience_s: float = 20) -> T:
    """What `look` found at last."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"still waiting: {what}")


def crowd(site: Site, manager: Manager, count: int = TASKS, seconds: float = 0.01) -> Running:
    command = [sys.executable, str(CROWD), manager.id, str(count), str(seconds)]
    return site.processes.start("the crowd", command, site.person("harper"), account="alice")


def monitor(manager: Manager) -> psutil.Process:
    return psutil.Process(manager.process.process.pid)


def commands(processes: list[psutil.Process]) -> dict[int, str]:
    found = {}
    for process in processes:
        try:
            found[process.pid] = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def part(manager: Manager, mark: str, *, other_than: int = 0) -> int:
    """The process of this manager whose command line says so; waits until there is one."""

    def look() -> int | None:
        found = commands(monitor(manager).children(recursive=True))
        return next((pid for pid, command in found.items() if mark in command and pid != other_than), None)

    return until(look, f"a process that says {mark}")


def outcome(running: Running, count: int = TASKS) -> dict[str, int]:
    told = json.loads(running.wait_for("told ", 120).removeprefix("told "))
    assert told["twice"] == []
    assert sum(told["ended"].values()) == count
    assert "wrong" not in told["ended"]
    return told["ended"]


def halfway(site: Site, config: str = "", template: str = TEMPLATE) -> tuple[Manager, Running]:
    """A manager, and a crowd that has its first results."""
    manager = site.manager("kill", "mickey97", config=config, template=template)
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    return manager, running


def test_a_killed_service_that_comes_back_loses_nothing(site: Site) -> None:
    service = site.serve()
    _, running = halfway(site)
    service.kill()
    site.serve()
    assert outcome(running) == {"result": TASKS}


def test_tasks_for_a_service_that_was_killed_do_not_wait_for_a_heartbeat(site: Site) -> None:
    service = site.serve()
    manager = site.single("one", "harper", "engine:\n  type: ThreadPoolEngine\n", account="harper")
    service.kill()
    site.serve()
    began_s = time.monotonic()
    assert outcome(crowd(site, manager, 50), 50) == {"result": 50}
    assert time.monotonic() - began_s < 15


def test_a_killed_agent_is_replaced_and_nothing_is_lost(site: Site) -> None:
    site.serve()
    manager, running = halfway(site)
    before, serving = part(manager, AGENT), part(manager, ENDPOINT)
    os.kill(before, signal.SIGKILL)
    assert outcome(running) == {"result": TASKS}
    assert part(manager, AGENT, other_than=before)
    assert part(manager, ENDPOINT) == serving


def test_an_agent_killed_with_a_start_order_in_its_hands_leaves_it_to_the_next(site: Site) -> None:
    site.serve()
    manager = site.manager("kill", "mickey97")
    agent = part(manager, AGENT)
    os.kill(monitor(manager).pid, signal.SIGSTOP)  # it answers nothing: the order stays under way
    try:
        running = crowd(site, manager)
        until(lambda: holds_an_order(agent), "the agent has the order")
        os.kill(agent, signal.SIGKILL)
    finally:
        os.kill(monitor(manager).pid, signal.SIGCONT)
    assert outcome(running) == {"result": TASKS}


def holds_an_order(agent: int) -> bool:
    """Its payload lies in a memory file until root has answered."""
    return any("memfd:payload" in str(fd.readlink()) for fd in Path(f"/proc/{agent}/fd").iterdir() if fd.is_symlink())


def test_a_killed_user_endpoint_is_replaced_and_only_running_tasks_end_in_an_error(site: Site) -> None:
    site.serve()
    manager, running = halfway(site)
    os.kill(part(manager, ENDPOINT), signal.SIGKILL)
    ended = outcome(running)
    assert set(ended) <= {"result", "UserEndpointLost"}
    # What had been handed to two workers may be lost; what waited must not be.
    assert ended["result"] >= TASKS - 20


def test_a_user_endpoint_killed_before_its_check_in_is_started_again(site: Site) -> None:
    site.serve()
    template = TEMPLATE.replace("{{ endpoint_setup|default() }}", "sleep 1")
    manager = site.manager("kill", "mickey97", template=template)
    running = crowd(site, manager)
    killed = part(manager, ENDPOINT)
    os.kill(killed, signal.SIGKILL)
    assert part(manager, ENDPOINT, other_than=killed)
    assert outcome(running) == {"result": TASKS}


def test_a_killed_worker_costs_the_task_it_ran(site: Site) -> None:
    site.serve()
    manager, running = halfway(site)
    os.kill(part(manager, WORKER), signal.SIGKILL)
    ended = outcome(running)
    assert ended in ({"result": TASKS}, {"result": TASKS - 1, "WorkerLost": 1})


def test_a_killed_monitor_takes_its_processes_along_and_its_tasks_end_with_the_cause(site: Site) -> None:
    site.serve("--offline-grace", "2")
    manager, running = halfway(site)
    family = monitor(manager).children(recursive=True)
    manager.process.kill()
    ended = outcome(running)
    assert set(ended) == {"result", "EndpointOffline"}
    until(lambda: not commands(family), "no process of the killed manager is left")
    again = site.start(manager.directory, "mickey97")
    assert again.id == manager.id
    assert outcome(crowd(site, again, 50), 50) == {"result": 50}
    assert len(user_endpoints(site)) == 1


def test_a_user_endpoint_that_prepares_itself_goes_with_its_killed_monitor(site: Site) -> None:
    site.serve()
    template = TEMPLATE.replace("{{ endpoint_setup|default() }}", "sleep 300; true")
    manager = site.manager("kill", "mickey97", template=template)
    crowd(site, manager, 1)
    part(manager, "sleep 300")
    family = monitor(manager).children(recursive=True)
    manager.process.kill()
    until(lambda: not commands(family), "no process of the killed manager is left")


def test_a_monitor_started_right_after_it_was_killed_goes_on_with_everything(site: Site) -> None:
    site.serve()
    manager, running = halfway(site)
    manager.process.kill()
    again = site.start(manager.directory, "mickey97")
    assert outcome(running) == {"result": TASKS}
    assert again.id == manager.id
    assert len(user_endpoints(site)) == 1


def test_a_new_user_endpoint_waits_until_the_one_of_a_killed_monitor_has_finished_its_tasks(site: Site) -> None:
    site.serve()
    manager = site.manager("kill", "mickey97")
    running = crowd(site, manager, 4, seconds=3)
    part(manager, WORKER)
    running.wait_for("all submitted", 20)
    until(lambda: started(site) >= 2, "two tasks run")
    manager.process.kill()
    site.start(manager.directory, "mickey97")
    assert outcome(running, 4) == {"result": 4}


def started(site: Site) -> int:
    """Tasks that a worker was given, by the journals: fixed records of 21 bytes."""
    return sum(
        (place / "journal").stat().st_size // 21 for place in user_endpoints(site) if (place / "journal").exists()
    )


def user_endpoints(site: Site) -> list[Path]:
    """Their directories in harper's home."""
    return list((site.directory / "home" / "harper" / ".muster").iterdir())
