"""What a store survives: restarts, kills, full disks, a server that goes away."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import contextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest

from muster.errors import ConfigInvalid, Outage, StoreOutage
from muster.model.task import Outcome
from muster.store import open_store

ADD_FOR_EVER = """
import asyncio, sys
from uuid import UUID, uuid4
from muster.model.task import Task
from muster.store import open_store

async def main(url, rounds):
    store = await open_store(url)
    for _ in range(rounds):
        tasks = [Task(uuid4(), UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4), "payload") for _ in range(5)]
        await store.add_tasks(tasks)
        print(*(task.id for task in tasks), flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def adding(url: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ADD_FOR_EVER, url, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


async def test_everything_is_there_after_a_restart(url, harper, job):
    store = await open_store(url)
    await store.add_identity(harper, "hash")
    waiting, done = job.tasks(2)
    await store.add_tasks([done, waiting])
    ended = Outcome(done.id, "result", completed_at_s=2000.0)
    await store.finish([ended])
    await store.close()

    store = await open_store(url)
    assert await store.identity(harper.id) == harper
    assert await store.unfinished(job.endpoint) == [waiting]
    assert await store.outcomes([done.id]) == {done.id: ended}
    later = job.task()
    await store.add_tasks([later])
    assert await store.unfinished(job.endpoint) == [waiting, later]
    await store.close()


async def test_what_was_answered_survives_a_kill(url):
    with adding(url, 1_000_000) as process:
        lines = [process.stdout.readline() for _ in range(10)]
        process.send_signal(signal.SIGKILL)
        lines += [line for line in process.stdout if line.endswith("\n")]
    store = await open_store(url)
    answered = [UUID(word) for line in lines for word in line.split()]
    assert len(answered) >= 50
    assert (await store.tasks(answered)).keys() == set(answered)
    await store.close()


async def test_several_processes_share_one_new_database(empty_url):
    processes = [adding(empty_url, 10) for _ in range(3)]
    said = [await asyncio.to_thread(process.communicate) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    ids = [UUID(word) for out, _ in said for word in out.split()]
    store = await open_store(empty_url)
    assert sorted(task.id for task in await store.unfinished(UUID(int=3))) == sorted(ids)
    assert len(ids) == 150
    await store.close()


async def test_a_closed_store_says_so(url, job):
    store = await open_store(url)
    await store.close()
    await store.close()
    for call in (store.add_tasks([job.task()]), store.tasks([uuid4()]), store.identity(uuid4())):
        with pytest.raises(Outage):
            await call


async def test_a_cancelled_caller_disturbs_nobody(store, job):
    callers = [asyncio.create_task(store.add_tasks(job.tasks(3))) for _ in range(20)]
    await asyncio.sleep(0)
    callers[3].cancel()
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(ends.pop(3), asyncio.CancelledError)
    assert all(len(end) == 3 for end in ends)


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite://host/path", "sqlite:///", "sqlite:////tmp/x?mode=ro", "muster.db"]
)
async def test_a_url_that_means_nothing_is_refused_with_the_right_form(url):
    with pytest.raises(ConfigInvalid):
        await open_store(url)


# -- SQLite ------------------------------------------------------------------------------------------------------------


async def test_the_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "new" / "muster.db"
    store = await open_store(f"sqlite:///{path}")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert (modes, stat.S_IMODE(path.parent.stat().st_mode)) == ({0o600}, 0o700)
    await store.close()


async def test_a_directory_or_file_open_to_others_is_complained_about(tmp_path, caplog):
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    (place / "muster.db").touch(0o644)
    with caplog.at_level(logging.WARNING, "muster.store"):
        await (await open_store(f"sqlite:///{place}/muster.db")).close()
    assert ["chmod go-w" in caplog.text, "chmod 600" in caplog.text] == [True, True]


async def test_the_default_waits_for_the_disk_and_an_option_does_not(tmp_path):
    for query, level in (("", 2), ("?synchronous=normal", 1)):
        store = await open_store(f"sqlite:///{tmp_path}/muster.db{query}")
        found = await store._database.write(
            lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()
        )
        assert found == level
        await store.close()


async def test_a_file_that_is_no_database_is_an_outage_with_the_cause(tmp_path):
    (tmp_path / "muster.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreOutage, match="not a database"):
        await open_store(f"sqlite:///{tmp_path}/muster.db")


async def test_a_place_that_cannot_be_written_is_an_outage_with_the_cause():
    with pytest.raises(StoreOutage, match="/proc"):
        await open_store("sqlite:////proc/nowhere/muster.db")


async def test_a_database_that_another_program_holds_is_an_outage_and_then_works(tmp_path, job, monkeypatch):
    store = await open_store(f"sqlite:///{tmp_path}/muster.db")
    await store._database.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout = 50"))
    holder = sqlite3.connect(tmp_path / "muster.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreOutage, match="locked"):
        await store.add_tasks(job.tasks(1))
    holder.execute("ROLLBACK")
    holder.close()
    assert len(await store.add_tasks(job.tasks(1))) == 1
    await store.close()


@contextmanager
def no_room(path):
    """Files of this process cannot grow any more, as on a full disk."""
    size = path.stat().st_size if path.exists() else 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_call_for_which_there_is_no_room_leaves_no_trace_and_the_next_one_works(tmp_path, job):
    store = await open_store(f"sqlite:///{tmp_path}/muster.db")
    kept = job.tasks(10)
    await store.add_tasks(kept)
    with no_room(tmp_path / "muster.db-wal"):
        with pytest.raises(StoreOutage, match="SQLite"):
            await store.add_tasks(job.tasks(500, payload="x" * 1000))
        assert await store.unfinished(job.endpoint) == kept
    more = job.tasks(5)
    await store.add_tasks(more)
    assert await store.unfinished(job.endpoint) == kept + more
    await store.close()


async def test_a_call_that_fits_is_not_lost_with_one_that_does_not(tmp_path, job):
    store = await open_store(f"sqlite:///{tmp_path}/muster.db")
    with no_room(tmp_path / "muster.db-wal"):
        large, name = store.add_tasks(job.tasks(500, payload="x" * 1000)), store.setting("name", b"value")
        ends = await asyncio.gather(large, name, return_exceptions=True)
    assert isinstance(ends[0], StoreOutage)
    assert ends[1] == b"value"
    assert await store.unfinished(job.endpoint) == []
    await store.close()


@pytest.mark.root
async def test_a_full_disk_is_an_outage_until_there_is_room(tmp_path, job):
    if os.getuid() != 0:
        pytest.skip("mounts a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path]
    subprocess.run(mount, check=True)  # noqa: ASYNC221 - nothing else runs meanwhile
    try:
        (tmp_path / "ballast").write_bytes(b"x" * 1_000_000)
        store = await open_store(f"sqlite:///{tmp_path}/muster.db")
        kept = []
        with pytest.raises(StoreOutage, match="full"):
            while True:
                batch = job.tasks(50, payload="x" * 1000)
                await store.add_tasks(batch)
                kept += batch
        assert await store.unfinished(job.endpoint, limit=10_000) == kept
        (tmp_path / "ballast").unlink()
        await store.add_tasks(batch)
        assert await store.unfinished(job.endpoint, limit=10_000) == kept + batch
        await store.close()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)  # noqa: ASYNC221


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_a_server_that_is_away_is_an_outage_and_its_return_is_noticed(postgres, postgresql_url, harper, job):
    store = await open_store(postgresql_url)
    await store.add_identity(harper)
    tasks = job.tasks(3)
    await store.add_tasks(tasks)
    postgres.stop()
    try:
        for call in (store.add_tasks(job.tasks(1)), store.tasks([uuid4()]), store.identity(harper.id)):
            with pytest.raises(StoreOutage, match="PostgreSQL"):
                await call
    finally:
        postgres.start()
    assert await store.identity(harper.id) == harper
    assert await store.unfinished(job.endpoint) == tasks
    await store.close()


@pytest.mark.postgres
async def test_a_restart_between_two_calls_goes_unnoticed(postgres, postgresql_url, harper, job):
    store = await open_store(postgresql_url)
    await store.add_identity(harper)
    await store.add_tasks(job.tasks(1))
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)
    assert await store.identity(harper.id) == harper
    assert len(await store.add_tasks(job.tasks(1))) == 1
    await store.close()


@pytest.mark.postgres
async def test_a_call_cut_in_the_middle_is_an_outage_and_can_be_repeated(postgres, postgresql_url, job):
    store = await open_store(postgresql_url)
    tasks = job.tasks(3)
    holder = await asyncpg.connect(postgresql_url)
    await holder.execute("BEGIN; LOCK TABLE pending IN ACCESS EXCLUSIVE MODE")
    call = asyncio.create_task(store.add_tasks(tasks))
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(10):
        while await holder.fetchval(blocked) == 0:
            assert not call.done()
    await asyncio.to_thread(postgres.stop)
    with pytest.raises(StoreOutage):
        await call
    await asyncio.to_thread(postgres.start)
    assert await store.add_tasks(tasks) == [task.id for task in tasks]
    await store.close()
    holder.terminate()


@pytest.mark.postgres
async def test_a_server_that_was_never_there_is_an_outage(free_tcp_port):
    with pytest.raises(StoreOutage):
        await open_store(f"postgresql://harper@127.0.0.1:{free_tcp_port}/muster")
