"""The agent's parts: what it keeps of its user endpoints, what it makes of commands, and its line to the monitor."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from muster.manager.children import Children, EarlyLog
from muster.manager.rootlink import RootLink, Site, _mark, memory_file
from muster.manager.starts import Starts
from muster.wire.command import START, BrokerCredentials, Payload, QueueInfo, Sealed, StartCommand, encode_json

MANAGER = "4ade2ce0-9c00-4d8c-b996-4dff8fbb4bd0"
ONE = UUID("e9097f8f-dcfc-3bc0-1b42-0b4ad5e3922a")
NAME = f"uep.{MANAGER}.{ONE}"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(tmp_path)  # an agent stands in its state directory
    yield
    os.chdir(before)


@pytest.mark.parametrize(("status", "why"), [(-9, "SIGKILL"), (-40, "signal 40"), (3, "status 3")])
async def test_every_way_to_end_has_words(state: None, status: int, why: str) -> None:
    children = Children([])
    children.started(NAME, EarlyLog())
    fact = children.ended(NAME, status)
    assert (fact["endpoint_id"], fact["code"], fact["quick"]) == (str(ONE), "EXITED", True)
    assert why in fact["public"]
    assert not children.running


async def test_who_never_stops_talking_is_not_heard_for_ever(state: None) -> None:
    """What a user endpoint left behind may hold the pipe, and fill it faster than it is read."""
    early = EarlyLog()
    read_end = os.dup(early.write_end)
    writer = await asyncio.create_subprocess_exec("yes", "noise", stdout=read_end, stderr=asyncio.subprocess.DEVNULL)
    os.close(read_end)
    os.close(early.write_end)
    async with asyncio.timeout(20):
        assert await asyncio.to_thread(select.select, [early._read], [], [], 10)
        assert early.last_line() in ("noise", "nois", "noi", "no", "n")
        assert await writer.wait() != 0  # nobody reads any more


async def test_what_ended_while_nobody_looked_is_told_once(state: None) -> None:
    Children([]).started(NAME, EarlyLog())
    after = Children([])
    (fact,) = after.lost()
    assert fact["code"] == "EXITED"
    after.told([fact])
    assert Children([]).lost() == []


@dataclass
class Command:
    """A start command as it comes from the queue."""

    body: bytes
    timestamp_s: int | None
    acked: bool = False
    content_type: str | None = "application/json"
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)

    def ack(self) -> None:
        self.acked = True

    def requeue(self) -> None:
        raise AssertionError("a start command is never given back")


def command(at_s: int | None) -> Command:
    queue = QueueInfo(connection_url="amqp://nowhere", exchange="", queue="q")
    credentials = BrokerCredentials(
        endpoint_id=str(ONE), task_queue_info=queue, result_queue_info=queue, heartbeat_queue_info=queue
    )
    payload = encode_json(Payload(name=NAME, amqp_creds=credentials)).decode()
    sealed = Sealed(order=b"order", seal=b"s" * 32, payload=payload)
    start = StartCommand(
        command=START, globus_username="h", globus_effective_identity="h", globus_identity_set=[], sealed=sealed
    )
    return Command(encode_json(start), at_s)


class Monitor:
    """The other end of the line: answers every request with the same code."""

    def __init__(self, link: socket.socket, code: str) -> None:
        self.link, self.code, self.asked = link, code, list[bytes]()
        link.setblocking(False)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready = asyncio.Event()
            loop.add_reader(self.link, ready.set)
            await ready.wait()
            loop.remove_reader(self.link)
            body, fds, _, _ = socket.recv_fds(self.link, 1 << 17, 4)
            for fd in fds:
                os.close(fd)
            self.asked.append(body)
            answer = {"answer": int(body.split(b"\n")[0].split()[1]), "code": self.code, "public": "why"}
            self.link.send(json.dumps(answer).encode())


async def take(code: str, *commands: Command) -> tuple[list[dict[str, Any]], Monitor]:
    """What is reported to the service, and what the monitor was asked."""
    reported: list[dict[str, Any]] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        monitor = Monitor(theirs, code)
        serving = asyncio.create_task(monitor.serve())
        starts = Starts(RootLink(ours), Children([]), reported.append)
        await asyncio.gather(*map(starts.take, commands))
        assert all(one.acked for one in commands)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(ours)
        asyncio.get_running_loop().remove_reader(theirs)
    return reported, monitor


async def test_a_refusal_of_root_reaches_the_service_with_its_reason(state: None) -> None:
    reported, monitor = await take("IDENTITY_UNMAPPED", command(int(time.time())))
    assert reported == [{"endpoint_id": str(ONE), "code": "IDENTITY_UNMAPPED", "public": "why", "quick": False}]
    assert monitor.asked == [b"start 1\n" + b"s" * 32 + b"order"]


@pytest.mark.parametrize("minutes", [-4, 4, None])
async def test_clocks_too_far_apart_are_said_once_a_fresh_command_looks_old_again_and_again(
    state: None, minutes: int | None
) -> None:
    at_s = None if minutes is None else int(time.time()) + minutes * 60
    reported, monitor = await take("STARTED", command(at_s), command(at_s))
    assert reported == []
    assert monitor.asked == []
    reported, monitor = await take("STARTED", *[command(at_s)] * 3)
    assert [fact["code"] for fact in reported] == ["START_FAILED"]
    assert "skew between system clocks" in reported[0]["public"]
    assert monitor.asked == []


async def test_what_is_no_start_command_is_dropped(state: None) -> None:
    other = command(int(time.time()))
    other.body = other.body.replace(START.encode(), b"getattr")
    garbage, typed = Command(b"\xff{", int(time.time())), command(int(time.time()))
    typed.content_type = "application/python-pickle"
    reported, monitor = await take("STARTED", other, garbage, typed)
    assert (reported, monitor.asked) == ([], [])


async def test_orders_for_one_user_endpoint_that_come_together_start_it_once(state: None) -> None:
    _, monitor = await take("STARTED", *[command(int(time.time())) for _ in range(50)])
    assert len(monitor.asked) == 1


def test_a_site_whose_files_are_written_or_replaced_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "user_config_template.yaml"
    for change in (lambda: file.write_text("other text"), lambda: (tmp_path / "new").rename(file)):
        file.write_text("engine: {}")
        (tmp_path / "new").write_text("engine: {}")
        fd = os.open(file, os.O_RDONLY)
        site = Site("", "", "", "", (fd,), (_mark(fd),))
        assert not site.changed()
        change()
        assert site.changed()
        os.close(fd)


def test_nobody_changes_a_payload_after_it_was_made() -> None:
    fd = memory_file(b"secret")
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_a_private_process_cannot_be_looked_into_by_its_own_account() -> None:
    """Asked as an ordinary account where the tests run as root, which may look into everything."""
    code = (
        "import os, sys\n"
        "sys.path[:0] = eval(sys.argv[1])\n"
        "from muster.manager.rootlink import keep_private\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "hear, tell = os.pipe(); keep_private(); child = os.fork()\n"
        "if child == 0:\n"
        "    try: open(f'/proc/{os.getppid()}/mem')\n"
        "    except PermissionError: os.write(tell, b'denied')\n"
        "    os._exit(0)\n"
        "os.wait(); os.close(tell); print(os.read(hear, 9).decode())\n"
    )
    seen = subprocess.run([sys.executable, "-c", code, repr(sys.path)], capture_output=True, text=True, check=True)
    assert seen.stdout == "denied\n"
