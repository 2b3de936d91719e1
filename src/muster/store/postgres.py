"""PostgreSQL behind the store: SQLAlchemy's pool for ordinary queries, the driver's own for the hot statements.

A connection that died while it lay in a pool is replaced silently; a call that was under way is an Outage, because only
its caller knows whether asking again is safe (with tasks, results and claims it is).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import Connection, Table, event, text
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine

from muster.errors import StoreOutage
from muster.model.task import Outcome, Task
from muster.store import postgres_tasks
from muster.store.contract import Finished
from muster.store.gathering import Gathering
from muster.store.postgres_failures import asks_to_retry, postgres_failures
from muster.store.schema import is_current, migrate

T = TypeVar("T")
CONNECTIONS = 5  # in each of the two pools
TRIES = 5
PATIENCE_S = 60.0  # for one statement: a half-open connection must not hold a caller for ever
SETTINGS = {
    "application_name": "muster",
    "jit": "off",  # our statements are short: compiling one takes longer than running it
    "default_transaction_isolation": "read committed",
}
# A cached plan from the time when the tables were empty must not scan them when they are full.
HOT_SETTINGS = SETTINGS | {"enable_seqscan": "off", "work_mem": "32MB"}


class PostgresDatabase:
    """Implements `Database`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._closed = False
        self._engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=self._connect, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=10
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_dead)
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._pool: asyncpg.Pool
        self._adding = Gathering(self._add_lists, len)
        self._finishing = Gathering(self._finish_lists, lambda call: len(call[0]))

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        database = cls(url)
        with postgres_failures():
            await database._migrate()
            database._pool = await asyncpg.create_pool(
                url,
                min_size=0,
                max_size=CONNECTIONS,
                command_timeout=PATIENCE_S,
                server_settings=HOT_SETTINGS,
                reset=_leave_as_it_is,
            )
        return database

    async def _connect(self) -> Any:
        return await asyncpg.connect(self._url, command_timeout=PATIENCE_S, server_settings=SETTINGS)

    async def _migrate(self) -> None:
        try:
            async with self._engine.begin() as connection:
                if await connection.run_sync(is_current):
                    return
            async with self._engine.begin() as connection:
                await connection.run_sync(self.serialise, "migrate")  # other processes may be starting, too
                await connection.run_sync(migrate)
        except BaseException:
            await self._engine.dispose()
            raise

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def serialise(self, connection: Connection, what: str) -> None:
        key = zlib.crc32(f"muster {what}".encode())
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    def size_bytes(self, connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    # -- ordinary --------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self._read, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self._write, work)

    async def single(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self._alone, work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        async with self._snapshot.connect() as connection:
            return await connection.run_sync(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def _alone(self, work: Callable[[Connection], T]) -> T:
        async with self._single.connect() as connection:
            return await connection.run_sync(work)

    # -- hot -------------------------------------------------------------------------------------------------------

    async def add_tasks(self, tasks: Sequence[Task]) -> list[UUID]:
        return await self._adding(tasks)

    async def finish(self, outcomes: Sequence[Outcome], endpoint: UUID | None) -> list[Finished]:
        return await self._finishing((outcomes, endpoint))

    async def _add_lists(self, calls: list[Sequence[Task]]) -> list[list[UUID]]:
        return await self._run(postgres_tasks.add, self._pool, calls)

    async def _finish_lists(self, calls: list[tuple[Sequence[Outcome], UUID | None]]) -> list[list[Finished]]:
        return await self._run(postgres_tasks.finish, self._pool, calls)

    async def tasks(self, ids: Sequence[UUID]) -> list[Task]:
        return await self._run(postgres_tasks.tasks, self._pool, ids)

    async def outcomes(self, ids: Sequence[UUID]) -> list[Outcome]:
        return await self._run(postgres_tasks.outcomes, self._pool, ids)

    async def unfinished(self, endpoint: UUID, after: UUID | None, limit: int) -> list[Task]:
        return await self._run(postgres_tasks.unfinished, self._pool, endpoint, after, limit)

    async def _run(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        if self._closed:
            raise StoreOutage("the store is closed")
        with postgres_failures():
            for _ in range(TRIES - 1):
                try:
                    return await work(*arguments)
                except Exception as why:  # only two of the server's refusals mean: again, it was bad luck
                    if not asks_to_retry(why):
                        raise
            return await work(*arguments)

    async def close(self) -> None:
        if self._closed:
            return
        await self._adding.drain()
        await self._finishing.drain()
        self._closed = True
        try:
            await asyncio.wait_for(self._pool.close(), 10)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            self._pool.terminate()
        await self._engine.dispose()


async def _leave_as_it_is(connection: Any) -> None:
    """Our statements leave nothing behind in a session, so there is nothing to reset: spare the round trip."""


def _refuse_dead(connection: Any, record: Any, proxy: Any) -> None:
    """Have the pool replace a connection whose server went away while it was idle."""
    del record, proxy
    if connection.driver_connection.is_closed():
        raise DisconnectionError
