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

FACTS = "SELECT id, seq, grp, endpoint FROM task WHERE id = ANY($1::uuid[])"
FINISH = """
WITH new AS (
    INSERT INTO result (seq, data, error_code, error_message, details, started_ns, ended_ns, completed_at_s)
    SELECT * FROM unnest($1::int8[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::int8[], $8::int8[],
                         $9::float8[])
    ON CONFLICT (seq) DO NOTHING RETURNING seq
), gone AS (
    DELETE FROM pending AS p USING unnest($1::int8[], $2::uuid[]) AS g (seq, endpoint)
    WHERE p.endpoint = g.endpoint AND p.seq = g.seq
)
SELECT seq FROM new"""

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
    """What was new, for each call. What a task belongs to never changes, so it is looked up before the transaction."""
    ids = dict.fromkeys(outcome.task for outcomes, _ in calls for outcome in outcomes)
    facts = {row[0]: row for row in await pool.fetch(FACTS, list(ids))}
    chosen: dict[int, tuple[Outcome, UUID, UUID, int]] = {}
    for number, (outcomes, only) in enumerate(calls):
        for outcome in outcomes:
            found = facts.get(outcome.task)
            if found is None or (only is not None and found[3] != only):
                continue
            _, seq, group, endpoint = found
            chosen.setdefault(seq, (outcome, group, endpoint, number))
    answers: list[list[Finished]] = [[] for _ in calls]
    if not chosen:
        return answers
    now_s = time.time()
    rows = [(seq, chosen[seq][2], *_values(chosen[seq][0], now_s)) for seq in sorted(chosen)]
    new = {row[0] for row in await pool.fetch(FINISH, *(list(column) for column in zip(*rows, strict=True)))}
    for seq, (outcome, group, endpoint, number) in chosen.items():
        if seq in new:
            answers[number].append(Finished(outcome.task, group, endpoint))
    return answers


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
