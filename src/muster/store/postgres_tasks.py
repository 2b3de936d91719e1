"""The hot statements of PostgreSQL, on the driver: a statement or two and one commit for a list of calls.

Arrays travel as parameters and become rows with `unnest`. Results are written in order of `seq`, so that two writers of
the same ones wait for each other and never in a circle.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from muster.model.task import Outcome, Task
from muster.store.contract import Finished
from muster.store.rows import distinct, new_ids, pack, pack_names, same_call, to_outcome, to_task

GIVEN = """
WITH given AS MATERIALIZED (
    SELECT nextval('task_seq_seq') AS seq, g.*
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::float8[],
                $7::bytea[], $8::bytea[], $9::bytea[])
    AS g (id, grp, owner, endpoint, function, created_at_s, payload, resources, serializers)
)"""
# Fails as a whole when one of them is there.
ADD_ALL = (
    GIVEN  # noqa: S608 - constants, both
    + """, wide AS (
    INSERT INTO pending (endpoint, seq, payload, resources, serializers)
    SELECT endpoint, seq, payload, resources, serializers FROM given
)
INSERT INTO task (seq, id, grp, owner, endpoint, function, created_at_s)
SELECT seq, id, grp, owner, endpoint, function, created_at_s FROM given"""
)
ADD_NEW = (
    GIVEN  # noqa: S608 - constants, both
    + """, new AS (
    INSERT INTO task (seq, id, grp, owner, endpoint, function, created_at_s)
    SELECT seq, id, grp, owner, endpoint, function, created_at_s FROM given
    ON CONFLICT (id) DO NOTHING RETURNING id, seq
), wide AS (
    INSERT INTO pending (endpoint, seq, payload, resources, serializers)
    SELECT endpoint, seq, payload, resources, serializers FROM given WHERE seq IN (SELECT seq FROM new)
)
SELECT id FROM new"""
)
KNOWN = "SELECT id, grp, owner, function FROM task WHERE id = ANY($1::uuid[])"

# OFFSET 0 and the array of addresses keep both steps look-ups by key, whatever sizes the planner believes in: joined,
# it reads a whole table, or the one for each row of the other. Rows of `pending` never move.
FINISH = """
WITH given AS MATERIALIZED (
    SELECT t.seq, t.id, t.grp, t.endpoint, g.data, g.code, g.message, g.details, g.started_ns, g.ended_ns, g.at_s
    FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::int8[], $8::int8[],
                $9::float8[])
    AS g (id, sender, data, code, message, details, started_ns, ended_ns, at_s)
    CROSS JOIN LATERAL (
        SELECT * FROM task WHERE task.id = g.id AND (g.sender IS NULL OR g.sender = task.endpoint) OFFSET 0
    ) AS t ORDER BY t.seq
), new AS (
    INSERT INTO result (seq, data, error_code, error_message, details, started_ns, ended_ns, completed_at_s)
    SELECT seq, data, code, message, details, started_ns, ended_ns, at_s FROM given
    ON CONFLICT (seq) DO NOTHING RETURNING seq
), gone AS (
    DELETE FROM pending WHERE ctid = ANY (ARRAY (
        SELECT (SELECT p.ctid FROM pending AS p WHERE p.endpoint = g.endpoint AND p.seq = g.seq) FROM given AS g
    ))
)
SELECT id, grp, endpoint FROM given WHERE seq IN (SELECT seq FROM new)"""

TASKS = """
SELECT t.id, t.grp, t.owner, t.endpoint, t.function, p.payload, p.resources, p.serializers, t.created_at_s
FROM task AS t LEFT JOIN pending AS p ON p.endpoint = t.endpoint AND p.seq = t.seq WHERE t.id = ANY($1::uuid[])"""
OUTCOMES = """
SELECT t.id, r.data, r.error_code, r.error_message, r.details, r.started_ns, r.ended_ns, r.completed_at_s
FROM task AS t JOIN result AS r ON r.seq = t.seq WHERE t.id = ANY($1::uuid[])"""
UNFINISHED = """
SELECT t.id, t.grp, t.owner, t.endpoint, t.function, p.payload, p.resources, p.serializers, t.created_at_s
FROM pending AS p JOIN task AS t ON t.seq = p.seq
WHERE p.endpoint = $1 AND p.seq > coalesce((SELECT seq FROM task WHERE id = $2), 0) ORDER BY p.seq LIMIT $3"""


async def add(pool: asyncpg.Pool, calls: Sequence[Sequence[Task]]) -> list[list[UUID]]:
    """The ids that were new, for each call."""
    tasks = distinct(calls)
    try:
        await pool.execute(ADD_ALL, *_columns(tasks.values()))
        new = set(tasks)
    except asyncpg.UniqueViolationError:  # a repeated call: rare, so only now look for what is there
        new = await _add_new(pool, tasks)
    return new_ids(calls, new)


async def _add_new(pool: asyncpg.Pool, tasks: dict[UUID, Task]) -> set[UUID]:
    async with pool.acquire() as connection, connection.transaction():
        new = {row[0] for row in await connection.fetch(ADD_NEW, *_columns(tasks.values()))}
        for id_, group, owner, function in await connection.fetch(KNOWN, list(tasks.keys() - new)):
            same_call(tasks[id_], group, owner, function)
    return new


def _columns(tasks: Iterable[Task]) -> list[list[Any]]:
    now_s = time.time()
    rows = (
        (
            task.id,
            task.group,
            task.owner,
            task.endpoint,
            task.function,
            task.created_at_s or now_s,
            pack(task.payload),
            pack(task.resources),
            pack_names(task.serializers),
        )
        for task in tasks
    )
    return [list(column) for column in zip(*rows, strict=True)]


async def finish(pool: asyncpg.Pool, calls: Sequence[tuple[Sequence[Outcome], UUID | None]]) -> list[list[Finished]]:
    """What was new, for each call."""
    firsts = [{outcome.task: outcome for outcome in reversed(outcomes)} for outcomes, _ in calls]
    if len(calls) > 1 and len(set().union(*firsts)) < sum(map(len, firsts)):  # two calls claim one task: in their order
        return [(await finish(pool, [call]))[0] for call in calls]
    now_s = time.time()
    rows = [
        (id_, only, *_values(outcome, now_s))
        for first, (_, only) in zip(firsts, calls, strict=True)
        for id_, outcome in first.items()
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    new = {id_: Finished(id_, group, endpoint) for id_, group, endpoint in await pool.fetch(FINISH, *columns)}
    return [[new[id_] for id_ in dict.fromkeys(o.task for o in outcomes) if id_ in new] for outcomes, _ in calls]


def _values(outcome: Outcome, now_s: float) -> tuple[Any, ...]:
    code, message = outcome.error or (None, None)
    return (
        pack(outcome.data),
        pack(code),
        pack(message),
        pack(outcome.details),
        outcome.started_ns,
        outcome.ended_ns,
        outcome.completed_at_s or now_s,
    )


async def tasks(pool: asyncpg.Pool, ids: Sequence[UUID]) -> list[Task]:
    return [to_task(*row) for row in await pool.fetch(TASKS, list(ids))]


async def outcomes(pool: asyncpg.Pool, ids: Sequence[UUID]) -> list[Outcome]:
    return [to_outcome(*row) for row in await pool.fetch(OUTCOMES, list(ids))]


async def unfinished(pool: asyncpg.Pool, endpoint: UUID, after: UUID | None, limit: int) -> list[Task]:
    return [to_task(*row) for row in await pool.fetch(UNFINISHED, endpoint, after, limit)]
