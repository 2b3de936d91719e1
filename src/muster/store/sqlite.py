"""SQLite behind the store: one thread writes, a few read.

All writes of this process, hot or not, queue for one thread, and those that queued up during a commit share the next:
with `synchronous=FULL` the wait for the disk is most of a small call. Each call has a savepoint of its own, so that one
that fails takes nothing of the others with it. Other processes may have the file open (BEGIN IMMEDIATE, busy timeout).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy import Connection, NullPool, Table, create_engine
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from muster.errors import StoreOutage
from muster.model.task import Outcome, Task
from muster.store import sqlite_tasks
from muster.store.contract import Finished
from muster.store.failures import sqlite_failures
from muster.store.gathering import Gathering
from muster.store.schema import migrate
from muster.store.sqlite_file import prepare

T = TypeVar("T")
BUSY_S = 10.0
READERS = 4
JOBS_A_COMMIT = 256
SETTINGS = (
    "page_size = 8192",  # of a new file: half the pages to write and to balance when rows are a kilobyte
    "foreign_keys = ON",
    "cache_size = -16384",  # KiB: the inner pages of a million tasks
    "wal_autocheckpoint = 2000",  # pages, 16 MB: hot ones move home once, and a log that stays small is not grown again
    "temp_store = MEMORY",
    "secure_delete = FAST",  # some builds wipe pages that are free already, which doubles the writing of a result
)


@dataclass(frozen=True, slots=True)
class Job:
    """One call, and where its answer goes."""

    work: Callable[[Any], Any]
    raw: bool  # `work` takes the driver's connection, not SQLAlchemy's
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class SqliteDatabase:
    """Implements `Database`."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._engine = create_engine("sqlite+pysqlite://", creator=self._connect, poolclass=NullPool)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._write_on, name="muster-store-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, "muster-store-reader")
        self._reader = threading.local()
        self._opened: list[Connection] = []
        self._adding = Gathering(self._add_lists, len)
        self._finishing = Gathering(self._finish_lists, lambda call: len(call[0]))

    @classmethod
    async def open(cls, path: str, synchronous: str) -> SqliteDatabase:
        database = cls(path, synchronous)
        try:
            with sqlite_failures():
                await asyncio.to_thread(database._create)
        except OSError as why:
            raise StoreOutage(f"SQLite: {why}") from why
        database._writer.start()
        return database

    def _create(self) -> None:
        prepare(self._path)
        with self._engine.connect() as connection:
            raw = _driver(connection)
            raw.execute("PRAGMA journal_mode = WAL").fetchone()
            raw.execute("BEGIN IMMEDIATE")  # two processes that create the same file: one of them waits here
            migrate(connection)
            raw.commit()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for setting in (*SETTINGS, f"synchronous = {self._synchronous}"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    def insert(self, table: Table) -> Insert:
        return cast("Insert", insert(table))

    def serialise(self, connection: Connection, what: str) -> None:
        del connection, what  # a transaction that writes is alone already

    def size_bytes(self, connection: Connection) -> int:
        raw = _driver(connection)
        (pages,), (size,) = raw.execute("PRAGMA page_count").fetchone(), raw.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._on_a_reader(lambda connection: _on_one_snapshot(connection, work))

    async def single(self, work: Callable[[Connection], T]) -> T:
        return await self._on_a_reader(lambda connection: _alone(connection, work))

    async def tasks(self, ids: Sequence[UUID]) -> list[Task]:
        return await self._on_a_reader(lambda connection: sqlite_tasks.tasks(_driver(connection), ids))

    async def outcomes(self, ids: Sequence[UUID]) -> list[Outcome]:
        return await self._on_a_reader(lambda connection: sqlite_tasks.outcomes(_driver(connection), ids))

    async def unfinished(self, endpoint: UUID, after: UUID | None, limit: int) -> list[Task]:
        return await self._on_a_reader(
            lambda connection: sqlite_tasks.unfinished(_driver(connection), endpoint, after, limit)
        )

    async def _on_a_reader(self, work: Callable[[Connection], T]) -> T:
        if self._closed:
            raise StoreOutage("the store is closed")
        with sqlite_failures():
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._with_reader, work)

    def _with_reader(self, work: Callable[[Connection], T]) -> T:
        connection = getattr(self._reader, "connection", None)
        if connection is None:
            connection = self._reader.connection = self._engine.connect()
            self._opened.append(connection)
        return work(connection)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await self._queue(work, raw=False)

    async def add_tasks(self, tasks: Sequence[Task]) -> list[UUID]:
        return await self._adding(tasks)

    async def finish(self, outcomes: Sequence[Outcome], endpoint: UUID | None) -> list[Finished]:
        return await self._finishing((outcomes, endpoint))

    async def _add_lists(self, calls: list[Sequence[Task]]) -> list[list[UUID]]:
        return await self._queue(lambda raw: sqlite_tasks.add(raw, calls), raw=True)

    async def _finish_lists(self, calls: list[tuple[Sequence[Outcome], UUID | None]]) -> list[list[Finished]]:
        return await self._queue(lambda raw: sqlite_tasks.finish(raw, calls), raw=True)

    async def _queue(self, work: Callable[[Any], T], *, raw: bool) -> T:
        if self._closed:
            raise StoreOutage("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(Job(work, raw, loop, future))
        with sqlite_failures():
            return await future

    async def close(self) -> None:
        if self._closed:
            return
        await self._adding.drain()
        await self._finishing.drain()
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._opened:
            connection.close()
        self._engine.dispose()

    def _write_on(self) -> None:
        with self._engine.connect() as connection:
            while jobs := self._next_jobs():
                answers = self._commit(connection, jobs)
                self._tell(jobs, answers)

    def _next_jobs(self) -> list[Job]:
        first = self._jobs.get()
        if first is None:
            return []
        jobs = [first]
        while len(jobs) < JOBS_A_COMMIT:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                self._jobs.put(None)  # for the next round
                break
            jobs.append(job)
        return jobs

    def _commit(self, connection: Connection, jobs: list[Job]) -> list[Any]:
        """An answer or an exception for each; when the transaction itself is lost, each is tried alone."""
        raw = _driver(connection)
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as why:
            return [why] * len(jobs)
        try:
            answers = [_attempt(connection, raw, job) for job in jobs]
            raw.execute("COMMIT")
        except sqlite3.Error as why:  # a full disk shows here, or ends the transaction in the middle
            if len(jobs) == 1:
                return [why]
        else:
            return answers
        finally:
            _leave(connection, raw)
        return [answer for job in jobs for answer in self._commit(connection, [job])]

    @staticmethod
    def _tell(jobs: list[Job], answers: list[Any]) -> None:
        loops = {job.loop for job in jobs}
        for loop in loops:
            mine = [(job.future, answer) for job, answer in zip(jobs, answers, strict=True) if job.loop is loop]
            with suppress(RuntimeError):  # its loop is closed: nobody waits any more, and the others still do
                loop.call_soon_threadsafe(_settle, mine)


def _attempt(connection: Connection, raw: sqlite3.Connection, job: Job) -> Any:
    raw.execute("SAVEPOINT one")
    try:
        answer = job.work(raw if job.raw else connection)
    except Exception as why:  # it belongs to the caller, in whose task it is raised again
        if not raw.in_transaction:
            raise sqlite3.OperationalError(f"the transaction was lost: {why}") from why
        raw.execute("ROLLBACK TO one")
        answer = why
    raw.execute("RELEASE one")
    return answer


def _leave(connection: Connection, raw: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error, SQLAlchemyError):  # the thread must outlive it; the next BEGIN would tell
        if connection.in_transaction():  # SQLAlchemy believes in a transaction since the first statement
            connection.rollback()
        if raw.in_transaction:
            raw.rollback()


def _settle(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _on_one_snapshot(connection: Connection, work: Callable[[Connection], T]) -> T:
    raw = _driver(connection)
    raw.execute("BEGIN")
    try:
        return work(connection)
    finally:
        _leave(connection, raw)


def _alone(connection: Connection, work: Callable[[Connection], T]) -> T:
    try:
        return work(connection)
    finally:
        _leave(connection, _driver(connection))


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)
