"""The SDK against a real service and a real single-user endpoint: results, faults, and the service killed between."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster import Client, Executor, TaskExecutionFailed
from muster.errors import NotFound, NotPermitted
from muster.sdk import ShellFunction
from muster.testing.processes import Processes
from muster.testing.site import Manager, Site

CONFIG = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="muster-sdk-") as name, Processes() as processes:
        site = Site(Path(name), processes)
        site.service = site.serve()
        yield site


@pytest.fixture(scope="module")
def endpoint(site: Site) -> Manager:
    return site.single("lab", "harper", CONFIG)


@pytest.fixture
def harper(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in site.person("harper").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def client(harper) -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


@pytest.fixture
def executor(client: Client, endpoint: Manager) -> Iterator[Executor]:
    with Executor(endpoint.id, client) as ex:
        yield ex


def double(number):
    return number * 2


def divide(number):
    return 10 // number


def test_five_thousand_tasks_come_back_each_with_its_own_value(executor):
    futures = [executor.submit(double, n) for n in range(5000)]
    assert [future.result(60) for future in futures] == [n * 2 for n in range(5000)]
    assert len({future.task_id for future in futures}) == 5000
    assert executor.task_count_submitted == 5000


def test_an_exception_shows_the_line_it_came_from(executor):
    with pytest.raises(TaskExecutionFailed) as caught:
        executor.submit(divide, 0).result(20)
    assert str(caught.value).startswith("ZeroDivisionError: ")
    assert "return 10 // number" in str(caught.value)


def test_a_worker_that_dies_is_named(executor):
    with pytest.raises(TaskExecutionFailed) as caught:
        executor.submit(os._exit, 3).result(30)
    assert caught.value.code == "WorkerLost"
    assert str(caught.value).startswith("The worker process running this task died")


def test_map_and_await_work_on_the_real_thing(executor):
    assert list(executor.map(double, range(300), timeout=30)) == [n * 2 for n in range(300)]

    async def both():
        return await asyncio.gather(*(executor.submit(double, n) for n in (1, 2)))

    assert asyncio.run(both()) == [2, 4]


def test_a_shell_function_runs_there(executor):
    assert executor.submit(ShellFunction("echo {word}"), word="hello").result(20).stdout == "hello\n"


def test_the_worker_tells_its_hardware(executor):
    assert "cores" in executor.get_worker_hardware_details()


def test_the_service_killed_and_restarted_between_submits_costs_nothing(site, executor):
    before = [executor.submit(double, n) for n in range(200)]
    site.service.kill()
    during = [executor.submit(double, n) for n in range(200, 400)]
    site.service = site.serve()
    after = [executor.submit(double, n) for n in range(400, 600)]
    futures = [*before, *during, *after]
    concurrent.futures.wait(futures, 90)
    assert [future.result(0) for future in futures] == [n * 2 for n in range(600)]


def test_another_process_finds_the_tasks_of_a_group(site, endpoint, executor):
    futures = [executor.submit(double, n) for n in range(10)]
    concurrent.futures.wait(futures, 30)
    script = (
        "from muster import Executor\n"
        f"with Executor({endpoint.id!r}, task_group_id={str(executor.task_group_id)!r}) as ex:\n"
        "    print(sorted(future.result(20) for future in ex.reload_tasks()))\n"
    )
    told = site.processes.run([sys.executable, "-c", script], site.person("harper"))
    assert told.strip() == str([n * 2 for n in range(10)])


def test_two_processes_on_one_group_each_get_their_own_results(site, endpoint, executor):
    script = (
        "from muster import Executor\n"
        f"with Executor({endpoint.id!r}, task_group_id={str(executor.task_group_id)!r}) as ex:\n"
        "    print(sum(ex.map(abs, range(40), timeout=60)))\n"
    )
    executor.submit(double, 1).result(20)
    other = site.processes.start("the other", [sys.executable, "-c", script], site.person("harper"))
    futures = [executor.submit(double, n) for n in range(40)]
    concurrent.futures.wait(futures, 60)
    assert [future.result(0) for future in futures] == [n * 2 for n in range(40)]
    other.wait_for("780", 60)


def test_the_client_asks_for_tasks_functions_and_endpoints(client, endpoint):
    function_id = client.register_function(double, description="twice as much", public=True)
    assert client.get_function(function_id)["function_name"] == "double"
    task_id = client.run(4, endpoint_id=endpoint.id, function_id=function_id)
    with Executor(endpoint.id, client) as ex:
        ex.submit(double, 1).result(20)  # the one before it is done, too, or soon
    for _ in range(1000):
        if not client.get_task(task_id)["pending"]:
            break
    assert client.get_result(task_id) == 8
    assert client.get_endpoint_status(endpoint.id)["status"] == "online"
    assert endpoint.id in {found["uuid"] for found in client.get_endpoints()}
    assert client.get_endpoint_metadata(endpoint.id)["name"] == "lab"
    assert client.get_allowed_functions(endpoint.id) is None
    client.delete_function(function_id)
    with pytest.raises(NotFound):
        client.get_function(function_id)


def test_somebody_else_is_told_no(site, endpoint, monkeypatch):
    for name, value in site.person("mickey97").items():
        monkeypatch.setenv(name, value)
    client = Client()
    with Executor(endpoint.id, client) as ex:
        error = ex.submit(double, 1).exception(20)
    client.close()
    assert isinstance(error, (NotPermitted, NotFound))
