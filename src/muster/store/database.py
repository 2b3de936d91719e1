"""What the queries need of a database; SQLite and PostgreSQL each have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.postgresql import Insert

from muster.model.task import Outcome, Task
from muster.store.contract import Finished

T = TypeVar("T")


class Database(Protocol):
    """Ordinary work as functions of a SQLAlchemy connection; the hot statements on the driver itself."""

    def insert(self, table: Table) -> Insert:
        """The dialect's INSERT, for `on_conflict_do_...`; both databases read the same clauses."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run it on one snapshot."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run it in one transaction and return after commit."""

    async def single(self, work: Callable[[Connection], T]) -> T:
        """Run one statement that reads."""

    def serialise(self, connection: Connection, what: str) -> None:
        """Until the end of this transaction, nobody else does `what`."""

    def size_bytes(self, connection: Connection) -> int: ...

    async def add_tasks(self, tasks: Sequence[Task]) -> list[UUID]: ...
    async def finish(self, outcomes: Sequence[Outcome], endpoint: UUID | None) -> list[Finished]: ...
    async def tasks(self, ids: Sequence[UUID]) -> list[Task]: ...
    async def outcomes(self, ids: Sequence[UUID]) -> list[Outcome]: ...
    async def unfinished(self, endpoint: UUID, after: UUID | None, limit: int) -> list[Task]: ...
    async def close(self) -> None: ...
