"""The store on a SQL database: three families of queries, one connection to the truth."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from muster.store.database import Database
from muster.store.endpoints import EndpointQueries
from muster.store.identities import IdentityQueries
from muster.store.tables import endpoint, function, identity, pending, setting, task, task_group, user_endpoint
from muster.store.task_queries import TaskQueries


class SqlStore(IdentityQueries, EndpointQueries, TaskQueries):
    """Implements `muster.store.contract.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def close(self) -> None:
        await self._database.close()

    async def setting(self, name: str, default: bytes) -> bytes:
        def work(connection: Connection) -> bytes:
            insert = self._database.insert(setting).values(name=name, value=default)
            connection.execute(insert.on_conflict_do_nothing())
            return bytes(connection.execute(select(setting.c.value).where(setting.c.name == name)).scalar_one())

        return await self._database.write(work)

    async def load(self) -> Mapping[str, int]:
        """`tasks` is the width of the sequence, not a count: cheap with millions of rows, too many after rollbacks."""
        counted = {
            "identities": identity,
            "functions": function,
            "endpoints": endpoint,
            "user_endpoints": user_endpoint,
            "groups": task_group,
            "unfinished": pending,
        }

        def work(connection: Connection) -> dict[str, int]:
            counts = {
                name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
                for name, table in counted.items()
            }
            last = connection.execute(select(func.max(task.c.seq))).scalar()
            first = connection.execute(select(func.min(task.c.seq))).scalar()
            counts["tasks"] = 0 if last is None or first is None else last - first + 1
            counts["bytes"] = self._database.size_bytes(connection)
            return counts

        return await self._database.read(work)
