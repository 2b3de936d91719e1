"""The three ways to run one statement."""

from __future__ import annotations

from sqlalchemy import Executable

from muster.store.database import Database
from muster.store.rows import Fields


class Queries:
    """One statement, read or written; what takes several is a function of its own."""

    _database: Database

    async def _rows(self, statement: Executable) -> list[Fields]:
        return await self._database.single(lambda connection: list(connection.execute(statement).mappings()))

    async def _row(self, statement: Executable) -> Fields | None:
        return await self._database.single(lambda connection: connection.execute(statement).mappings().first())

    async def _change(self, statement: Executable) -> int:
        """How many rows it changed."""
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def _changed(self, statement: Executable) -> list[Fields]:
        """For statements with RETURNING."""
        return await self._database.write(lambda connection: list(connection.execute(statement).mappings()))
