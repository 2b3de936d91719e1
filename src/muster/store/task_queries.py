"""Task groups, tasks and their outcomes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

from sqlalchemy import Connection, delete, func, select, text, update

from muster.errors import NotPermitted
from muster.model.task import Outcome, Task, TaskGroup
from muster.store import tables
from muster.store.contract import Finished
from muster.store.queries import Queries
from muster.store.rows import to_group

USE_COUNTS_AFTER_S = 600.0  # how stale a group's `used_at_s` may be: not every submit shall cost a write
IDS_AT_ONCE = 5_000  # both databases bound the variables of a statement
PURGE_AT_ONCE = 5000  # the longest list of ids that both databases take

# A jump from endpoint to endpoint along the index: SELECT DISTINCT would walk through every pending task.
WITH_UNFINISHED = text("""
WITH RECURSIVE busy (endpoint) AS (
    SELECT * FROM (SELECT endpoint FROM pending ORDER BY endpoint LIMIT 1) AS first
    UNION ALL
    SELECT (SELECT p.endpoint FROM pending AS p WHERE p.endpoint > busy.endpoint ORDER BY p.endpoint LIMIT 1)
    FROM busy WHERE busy.endpoint IS NOT NULL
) SELECT endpoint FROM busy WHERE endpoint IS NOT NULL""").columns(endpoint=tables.Id)


class TaskQueries(Queries):
    """Implements the half of `muster.store.contract.ComputeStore` that is about tasks."""

    async def claim_group(self, group: TaskGroup) -> TaskGroup:
        now_s = time.time()
        there = tables.task_group.c
        row = await self._row(select(tables.task_group).where(there.id == group.id))
        if row is None or (row["owner"] == group.owner and row["used_at_s"] < now_s - USE_COUNTS_AFTER_S):
            created_at_s = group.created_at_s or now_s
            new = asdict(group) | {"created_at_s": created_at_s, "used_at_s": created_at_s}
            insert_ = self._database.insert(tables.task_group).values(new)
            mine = there.owner == insert_.excluded.owner
            claim = insert_.on_conflict_do_update(index_elements=["id"], set_={"used_at_s": now_s}, where=mine)
            row = next(iter(await self._changed(claim.returning(*there))), None)
        if row is None or row["owner"] != group.owner:
            raise NotPermitted(
                f"{group.id} is not {group.owner}'s", why=f"Task group {group.id} belongs to someone else."
            )
        return to_group(row)

    async def group(self, id_: UUID) -> TaskGroup | None:
        row = await self._row(select(tables.task_group).where(tables.task_group.c.id == id_))
        return None if row is None else to_group(row)

    async def set_group_bundles(self, id_: UUID, bundles: bool) -> None:
        changes = {"bundles": bundles, "used_at_s": time.time()}
        await self._change(update(tables.task_group).where(tables.task_group.c.id == id_).values(changes))

    async def recent_groups(self, since_s: float) -> list[TaskGroup]:
        """Created, attached to or submitted to since then, give or take ten minutes."""
        there = tables.task_group.c
        statement = select(tables.task_group).where(there.used_at_s >= since_s - USE_COUNTS_AFTER_S)
        return [to_group(row) for row in await self._rows(statement.order_by(there.created_at_s, there.id))]

    async def group_tasks(self, id_: UUID) -> list[tuple[UUID, float]]:
        there = tables.task.c
        rows = await self._rows(select(there.id, there.created_at_s).where(there.grp == id_).order_by(there.seq))
        return [(row["id"], row["created_at_s"]) for row in rows]

    async def add_tasks(self, tasks: Sequence[Task]) -> list[UUID]:
        return await self._database.add_tasks(tasks) if tasks else []

    async def finish(self, outcomes: Sequence[Outcome], endpoint: UUID | None = None) -> list[Finished]:
        return await self._database.finish(outcomes, endpoint) if outcomes else []

    async def tasks(self, ids: Sequence[UUID]) -> dict[UUID, Task]:
        """A finished task comes without its payload: it is dropped with the first result."""
        return {task.id: task for task in await self._database.tasks(ids)} if ids else {}

    async def outcomes(self, ids: Sequence[UUID]) -> dict[UUID, Outcome]:
        return {outcome.task: outcome for outcome in await self._database.outcomes(ids)} if ids else {}

    async def result_sizes(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        task, result = tables.task.c, tables.result.c
        sizes: dict[UUID, int] = {}
        for start in range(0, len(ids), IDS_AT_ONCE):
            statement = select(task.id, func.length(result.data).label("size"))
            statement = statement.join_from(tables.task, tables.result, task.seq == result.seq)
            rows = await self._rows(statement.where(task.id.in_(ids[start : start + IDS_AT_ONCE])))
            sizes.update((row["id"], row["size"]) for row in rows)
        return sizes

    async def group_results(self, group: UUID, since_s: float) -> list[tuple[UUID, int]]:
        task, result = tables.task.c, tables.result.c
        statement = select(task.id, func.length(result.data).label("size"))
        statement = statement.join_from(tables.task, tables.result, task.seq == result.seq)
        statement = statement.where(task.grp == group, result.completed_at_s >= since_s)
        rows = await self._rows(statement.order_by(result.completed_at_s, result.seq))
        return [(row["id"], row["size"]) for row in rows]

    async def unfinished(self, endpoint: UUID, after: UUID | None = None, limit: int = 1000) -> list[Task]:
        return await self._database.unfinished(endpoint, after, limit)

    async def endpoints_with_unfinished(self) -> list[UUID]:
        return [row["endpoint"] for row in await self._rows(WITH_UNFINISHED)]

    async def unfinished_before(self, created_before_s: float, limit: int = 1000) -> list[UUID]:
        task, pending = tables.task.c, tables.pending.c
        statement = select(task.id).join_from(tables.pending, tables.task, task.seq == pending.seq)
        rows = await self._rows(statement.where(task.created_at_s < created_before_s).limit(limit))
        return [row["id"] for row in rows]

    async def purge_results(self, completed_before_s: float, limit: int = 10_000) -> int:
        """Each result goes together with its task."""
        purged = 0
        while purged < limit:
            step = min(PURGE_AT_ONCE, limit - purged)
            gone = await self._purge(completed_before_s, step)
            purged += gone
            if gone < step:
                break
        return purged

    async def _purge(self, completed_before_s: float, limit: int) -> int:
        result = tables.result.c
        oldest = select(result.seq).where(result.completed_at_s < completed_before_s)
        oldest = oldest.order_by(result.completed_at_s).limit(limit)

        def work(connection: Connection) -> int:
            seqs = list(connection.execute(oldest).scalars())
            connection.execute(delete(tables.task).where(tables.task.c.seq.in_(seqs)))
            return connection.execute(delete(tables.result).where(result.seq.in_(seqs))).rowcount

        return await self._database.write(work)
