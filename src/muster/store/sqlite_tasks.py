"""The hot statements of SQLite, on the driver. All that write run in the one writer thread, inside BEGIN IMMEDIATE.

Those that write take lists of calls and answer each: see `muster.store.gathering`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from muster.model.task import Outcome, Task
from muster.store.contract import Finished
from muster.store.rows import distinct, new_ids, pack, pack_names, same_call, to_outcome, to_task

CHUNK = 512
SIZES = (1, 8, 64, CHUNK)  # few lengths of IN lists, so that the driver's cache of prepared statements holds them all

ADD_TASK = "INSERT INTO task (seq, id, grp, owner, endpoint, function, created_at_s) VALUES (?, ?, ?, ?, ?, ?, ?)"
ADD_PENDING = "INSERT INTO pending (endpoint, seq, payload, resources, serializers) VALUES (?, ?, ?, ?, ?)"
KNOWN = "SELECT id, grp, owner, function FROM task WHERE id IN ({})"
FACTS = "SELECT id, seq, grp, endpoint FROM task WHERE id IN ({})"
STILL_PENDING = """
SELECT t.id, t.seq, t.grp, t.endpoint FROM task AS t WHERE t.id IN ({})
AND EXISTS (SELECT 1 FROM pending AS p WHERE p.endpoint = t.endpoint AND p.seq = t.seq)"""
ADD_RESULT = """
INSERT INTO result (seq, data, error_code, error_message, details, started_ns, ended_ns, completed_at_s)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
DROP_PENDING = "DELETE FROM pending WHERE endpoint = ? AND seq = ?"
TASKS = """
SELECT t.id, t.grp, t.owner, t.endpoint, t.function, p.payload, p.resources, p.serializers, t.created_at_s
FROM task AS t LEFT JOIN pending AS p ON p.endpoint = t.endpoint AND p.seq = t.seq WHERE t.id IN ({})"""
OUTCOMES = """
SELECT t.id, r.data, r.error_code, r.error_message, r.details, r.started_ns, r.ended_ns, r.completed_at_s
FROM task AS t JOIN result AS r ON r.seq = t.seq WHERE t.id IN ({})"""
UNFINISHED = """
SELECT t.id, t.grp, t.owner, t.endpoint, t.function, p.payload, p.resources, p.serializers, t.created_at_s
FROM pending AS p JOIN task AS t ON t.seq = p.seq
WHERE p.endpoint = ? AND p.seq > coalesce((SELECT seq FROM task WHERE id = ?), 0) ORDER BY p.seq LIMIT ?"""


def add(raw: sqlite3.Connection, calls: Sequence[Sequence[Task]]) -> list[list[UUID]]:
    """The ids that were new, for each call."""
    tasks = distinct(calls)
    raw.execute("SAVEPOINT fresh")
    try:
        _insert(raw, tasks.values())
    except sqlite3.IntegrityError:  # a repeated call: rare, so only now look for what is there
        raw.execute("ROLLBACK TO fresh")
        for id_, group, owner, function in _found(raw, KNOWN, [id_.bytes for id_ in tasks]):
            known = tasks.pop(UUID(bytes=id_))
            same_call(known, UUID(bytes=group), UUID(bytes=owner), UUID(bytes=function))
        _insert(raw, tasks.values())
    raw.execute("RELEASE fresh")
    return new_ids(calls, set(tasks))


def _insert(raw: sqlite3.Connection, tasks: Iterable[Task]) -> None:
    # Nobody else can add: the transaction is ours.
    (first,) = raw.execute("SELECT coalesce(max(seq), 0) + 1 FROM task").fetchone()
    now_s = time.time()
    narrow: list[tuple[Any, ...]] = []
    wide: list[tuple[Any, ...]] = []
    last, where = None, (b"", b"", b"", b"")  # neighbours belong to the same call, as a rule
    for seq, task in enumerate(tasks, first):
        belongs = (task.group, task.owner, task.endpoint, task.function)
        if belongs != last:
            last, where = belongs, (task.group.bytes, task.owner.bytes, task.endpoint.bytes, task.function.bytes)
        narrow.append((seq, task.id.bytes, *where, task.created_at_s or now_s))
        resources, names = pack(task.resources), pack_names(task.serializers)
        wide.append((where[2], seq, pack(task.payload), resources, names))
    raw.executemany(ADD_TASK, narrow)
    raw.executemany(ADD_PENDING, wide)


def finish(raw: sqlite3.Connection, calls: Sequence[tuple[Sequence[Outcome], UUID | None]]) -> list[list[Finished]]:
    """What was new, for each call. A task is pending exactly as long as it has no result."""
    raw.execute("SAVEPOINT first")
    try:
        answers = _record(raw, calls, FACTS)
    except sqlite3.IntegrityError:  # a second result: rare, so only now look for what is still pending
        raw.execute("ROLLBACK TO first")
        answers = _record(raw, calls, STILL_PENDING)
    raw.execute("RELEASE first")
    return answers


def _record(
    raw: sqlite3.Connection, calls: Sequence[tuple[Sequence[Outcome], UUID | None]], statement: str
) -> list[list[Finished]]:
    keys = [[outcome.task.bytes for outcome in outcomes] for outcomes, _ in calls]
    open_ = {row[0]: row for row in _found(raw, statement, list(dict.fromkeys(chain(*keys))))}
    now_s = time.time()
    results: list[tuple[Any, ...]] = []
    gone: list[tuple[bytes, int]] = []
    uuids: dict[bytes, UUID] = {}  # the same few groups and endpoints, over and over
    answers = []
    for (outcomes, only), ids in zip(calls, keys, strict=True):
        answer = []
        only_bytes = only.bytes if only else None
        for outcome, id_ in zip(outcomes, ids, strict=True):
            row = open_.get(id_)
            if row is None or (only_bytes is not None and row[3] != only_bytes):
                continue
            del open_[id_]
            _, seq, group, endpoint = row
            results.append((seq, *_values(outcome, now_s)))
            gone.append((endpoint, seq))
            for known in (group, endpoint):
                if known not in uuids:
                    uuids[known] = UUID(bytes=known)
            answer.append(Finished(outcome.task, uuids[group], uuids[endpoint]))
        answers.append(answer)
    raw.executemany(DROP_PENDING, gone)
    raw.executemany(ADD_RESULT, results)
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


def tasks(raw: sqlite3.Connection, ids: Iterable[UUID]) -> list[Task]:
    return [_task(row) for row in _found(raw, TASKS, [id_.bytes for id_ in ids])]


def outcomes(raw: sqlite3.Connection, ids: Iterable[UUID]) -> list[Outcome]:
    return [to_outcome(UUID(bytes=row[0]), *row[1:]) for row in _found(raw, OUTCOMES, [id_.bytes for id_ in ids])]


def unfinished(raw: sqlite3.Connection, endpoint: UUID, after: UUID | None, limit: int) -> list[Task]:
    rows = raw.execute(UNFINISHED, (endpoint.bytes, after.bytes if after else None, limit))
    return [_task(row) for row in rows]


def _task(row: tuple[Any, ...]) -> Task:
    id_, group, owner, endpoint, function, *rest = row
    ids = (UUID(bytes=id_), UUID(bytes=group), UUID(bytes=owner), UUID(bytes=endpoint), UUID(bytes=function))
    return to_task(*ids, *rest)


def _found(raw: sqlite3.Connection, statement: str, ids: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(ids), CHUNK):
        chunk: list[bytes | None] = list(ids[start : start + CHUNK])
        size = next(size for size in SIZES if size >= len(chunk))
        chunk += [None] * (size - len(chunk))
        yield from raw.execute(statement.format(",".join("?" * size)), chunk).fetchall()
