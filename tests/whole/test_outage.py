"""What the work of 500 tasks goes through without a loss: connections that are cut, and a disk that is full."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from muster.testing.processes import Running
from muster.testing.proxy import CuttingProxy
from muster.testing.rabbitmq import free_port
from muster.testing.site import Manager, Site

pytestmark = [pytest.mark.root, pytest.mark.slow]
CROWD = Path(__file__).with_name("crowd.py")
TASKS = 500
T = TypeVar("T")
REGISTER = """
from muster import Client
from muster.errors import MusterError
try:
    Client().register_function(len)
except MusterError as why:
    print(type(why).__name__, why.code, why.message())
else:
    print("registered")
"""


class Cutter:
    """A proxy before a port, on a loop of its own."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._proxy = CuttingProxy("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._do(self._proxy.start())[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> int:
        """How many connections that ended."""

        async def now() -> int:
            return self._proxy.cut()

        return self._do(now())

    def cut_after(self, limit_bytes: int) -> None:
        """In the middle of a frame, most likely."""
        self._loop.call_soon_threadsafe(self._proxy.cut_after, limit_bytes)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


def crowd(site: Site, manager: Manager) -> Running:
    command = [sys.executable, str(CROWD), manager.id, str(TASKS), "0.01"]
    return site.processes.start("the crowd", command, site.person("harper"), account="alice")


def ended(running: Running) -> dict[str, int]:
    told = json.loads(running.wait_for("told ", 120).removeprefix("told "))
    assert told["twice"] == []
    return told["ended"]


def test_connections_that_are_cut_in_the_middle_cost_nothing(shared_site: Site) -> None:
    site = shared_site
    port = free_port()
    with Cutter(port) as cutter:
        site.amqp_listen = f"127.0.0.1:{port}"
        site.serve("--amqp-public", f"amqp://127.0.0.1:{cutter.port}/%2F")
        manager = site.manager("cut", "mickey97")
        running = crowd(site, manager)
        running.wait_for("20 ended", 60)
        assert cutter.cut() >= 3  # the agent's, the user endpoint's, the client's
        running.wait_for("250 ended", 60)
        cutter.cut_after(1000)
        assert ended(running) == {"result": TASKS}
        manager.process.stop()  # while the proxy still stands


class Disk:
    """The service's data directory as a file system of its own, which can be filled to the last byte."""

    def __init__(self, site: Site) -> None:
        self._site = site
        site.data.mkdir()
        self._as_root("mount", "-t", "tmpfs", "-o", "size=24m,uid=2003,gid=2003,mode=0700", "tmpfs", str(site.data))

    def fill(self) -> None:
        script = 'dd if=/dev/zero of="$1/filler" bs=4096 2>/dev/null; test "$(df --output=avail "$1" | tail -1)" -eq 0'
        self._as_root("sh", "-c", script, "fill", str(self._site.data))

    def free(self) -> None:
        self._as_root("rm", str(self._site.data / "filler"))

    def _as_root(self, *command: str) -> None:
        assert self._site.processes.space is not None
        subprocess.run(self._site.processes.space.command(command), check=True, timeout=30)


def test_a_full_disk_at_the_service_is_named_and_costs_nothing_that_was_accepted(shared_site: Site) -> None:
    site = shared_site
    disk = Disk(site)
    service = site.serve()
    manager = site.manager("full", "mickey97")
    running = crowd(site, manager)
    running.wait_for("20 ended", 60)
    disk.fill()
    service.wait_for("wait for the store", 20)  # results: they stay with the endpoint until they can be kept
    said = site.processes.run([sys.executable, "-c", REGISTER], site.person("harper"))
    assert "StoreOutage STORE_UNAVAILABLE" in said
    assert "try again" in said
    disk.free()
    assert ended(running) == {"result": TASKS}
    assert site.processes.run([sys.executable, "-c", REGISTER], site.person("harper")) == "registered\n"
