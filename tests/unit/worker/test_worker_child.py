from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from muster.serialize import Serializer
from muster.worker.bundle import Keeper, Row
from muster.worker.child import explain_exit
from muster.worker.process import Frames, frame
from muster.worker.task import Runner, TaskOptions

PACK = Serializer()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(true: object, within_s: float = 15) -> None:
    assert callable(true)
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        os.sched_yield()


def test_frames_are_cut_wherever_the_stream_was_broken() -> None:
    messages = [(1, "a" * 300), [b"x", None], "text"]
    stream = b"".join(frame(message) for message in messages)
    for step in (1, 7, 311, len(stream)):
        frames, seen = Frames(), []
        for at in range(0, len(stream), step):
            seen += frames.feed(stream[at : at + step])
        assert seen == messages


def test_a_worker_and_all_its_children_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from muster.serialize import Serializer
from muster.serialize.shell import ShellFunction
from muster.worker.child import Child
from muster.worker.process import frame
from muster.worker.task import TaskOptions
child = Child(TaskOptions(), Path({str(tmp_path / "log")!r}))
s = Serializer()
code = s.pack_function(ShellFunction("echo $$ > {tmp_path}/shell; sleep 300"))
child.socket.sendall(frame((False, {{0: code}}, [(1, 0, b"0" * 16, s.pack_arguments((), {{}}), ())])))
Path({str(tmp_path / "worker")!r}).write_text(str(child.pid))
time.sleep(300)
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    files = [tmp_path / "worker", tmp_path / "shell"]
    wait_for(lambda: all(file.exists() and file.read_text().strip() for file in files))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for file in files:
        pid = int(file.read_text())
        wait_for(lambda pid=pid: not alive(pid))


def test_an_exit_is_explained_in_words() -> None:
    assert explain_exit(3) == "it exited with code 3"
    assert "SIGSEGV" in explain_exit(-signal.SIGSEGV)
    assert "memory" in explain_exit(-signal.SIGKILL)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(TaskOptions(), tmp_path)
    yield keeper
    keeper.end()


def double(x: int) -> int:
    return 2 * x


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_crash_in_a_bundle_costs_the_call_that_crashed(keeper: Keeper) -> None:
    codes = {0: PACK.pack_function(double), 1: PACK.pack_function(die)}
    rows: list[Row] = [(0, uuid4().bytes, PACK.pack_arguments((n,), {}), ()) for n in range(20)]
    rows.insert(10, (1, uuid4().bytes, PACK.pack_arguments((signal.SIGSEGV,), {}), ()))
    answers = keeper.run(codes, rows, None)
    assert answers[10][1] == "WorkerLost"
    assert "SIGSEGV" in str(answers[10][2])
    assert [PACK.deserialize(a[0]) for a in answers if a[1] is None] == [2 * n for n in range(20)]


def test_a_call_over_its_time_ends_and_the_rest_of_the_bundle_runs(keeper: Keeper) -> None:
    codes = {0: PACK.pack_function(double), 1: PACK.pack_function(time.sleep)}
    rows: list[Row] = [
        (1, uuid4().bytes, PACK.pack_arguments((60,), {}), ()),
        (0, uuid4().bytes, PACK.pack_arguments((2,), {}), ()),
    ]
    late, fine = keeper.run(codes, rows, 0.3)
    assert late[1] == "TaskTimeout"
    assert PACK.deserialize(fine[0]) == 4


def test_a_changed_environment_of_the_node_reaches_the_call(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {0: PACK.pack_function(os.getenv)}
    rows: list[Row] = [(0, uuid4().bytes, PACK.pack_arguments(("PARSL_MPI_PREFIX",), {}), ())]
    for value in ("mpiexec -n 2", "mpiexec -n 4"):
        monkeypatch.setenv("PARSL_MPI_PREFIX", value)
        assert PACK.deserialize(keeper.run(codes, rows, None)[0][0]) == value


def test_a_runner_names_the_submitters_versions_when_code_does_not_load() -> None:
    runner = Runner(TaskOptions(submitter="Python 3.13.1 and dill 0.3.9"), exclusive=False)
    ran = runner.run(b"0" * 16, "8\n01\nabcd\n", PACK.pack_arguments((), {}))
    assert ran.error_code == "DeserializationError"
    assert "Python 3.13.1 and dill 0.3.9" in ran.data
