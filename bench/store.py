"""`python bench/store.py`: tasks in and results in, beside the bare drivers doing the least one could call the same.

Bare: one table of tasks, one of results, no idempotency, no rejection of second results, no queue of unfinished work.
With and without waiting for the disk. Ours and bare take turns, so that a noisy disk is noisy for both; medians of the
rounds, and the worst round beside the median ratio. About half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
from rich.console import Console
from rich.table import Table

from muster.model.task import Outcome, Task
from muster.store import open_store
from muster.testing.postgres import PrivatePostgres, server_programs

TEXT = "x" * 1000
DETAILS = '{"os": "Linux-6.1", "python_version": "3.11.2", "dill_version": "0.3.9"}'
TOTALS = {1: 100, 10: 500, 100: 2000, 1000: 4000}  # in one round
ROUNDS = 7
Batch = list[UUID]
Step = Callable[[Batch], Awaitable[object]]
Row = tuple[float, float, float]  # in a second, out a second, CPU microseconds


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that takes tasks and their results."""

    add: Step
    finish: Step
    close: Callable[[], Awaitable[None]]


def new_id() -> UUID:
    """Ordered by time, as the SDK makes them."""
    return UUID(int=(time.time_ns() << 64) | (uuid4().int & ((1 << 64) - 1)))


async def rate(step: Step, batches: list[Batch], callers: int) -> float:
    """Tasks a second, with so many callers at once."""
    queue = list(batches)

    async def caller() -> None:
        while queue:
            await step(queue.pop())

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return sum(map(len, batches)) / (time.perf_counter() - begun)


async def both(subject: Subject, size: int, callers: int = 1) -> Row:
    batches = [[new_id() for _ in range(size)] for _ in range(max(TOTALS[size] // size, callers))]
    cpu = time.process_time()
    into = await rate(subject.add, batches, callers)
    out = await rate(subject.finish, batches, callers)
    return into, out, (time.process_time() - cpu) / sum(map(len, batches)) * 1e6


async def store(url: str) -> Subject:
    opened = await open_store(url)
    group, owner, endpoint, function = (uuid4() for _ in range(4))

    async def add(batch: Batch) -> object:
        now_s = time.time()
        return await opened.add_tasks(
            [Task(id_, group, owner, endpoint, function, TEXT, None, (), now_s) for id_ in batch]
        )

    async def finish(batch: Batch) -> object:
        now_s = time.time()
        return await opened.finish([Outcome(id_, TEXT, None, DETAILS, 1, 2, now_s) for id_ in batch], endpoint)

    return Subject(add, finish, opened.close)


async def bare_sqlite(path: str, synchronous: str) -> Subject:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute(f"PRAGMA synchronous = {synchronous}")
    raw.execute(
        "CREATE TABLE t (id BLOB PRIMARY KEY, grp BLOB, owner BLOB, endpoint BLOB, function BLOB, at REAL, data TEXT)"
    )
    raw.execute("CREATE TABLE r (id BLOB PRIMARY KEY, data TEXT, details TEXT, a INTEGER, b INTEGER, at REAL)")
    facts = [uuid4().bytes for _ in range(4)]

    def write(statement: str, rows: list[tuple[object, ...]]) -> None:
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany(statement, rows)
        raw.execute("COMMIT")

    async def add(batch: Batch) -> None:
        write("INSERT INTO t VALUES (?,?,?,?,?,?,?)", [(id_.bytes, *facts, time.time(), TEXT) for id_ in batch])

    async def finish(batch: Batch) -> None:
        write("INSERT INTO r VALUES (?,?,?,?,?,?)", [(id_.bytes, TEXT, DETAILS, 1, 2, time.time()) for id_ in batch])

    async def close() -> None:
        raw.close()

    return Subject(add, finish, close)


async def bare_postgres(url: str) -> Subject:
    raw = await asyncpg.connect(url)
    await raw.execute(
        "CREATE TABLE t (id uuid PRIMARY KEY, grp uuid, owner uuid, endpoint uuid, function uuid, at float8, data text)"
    )
    await raw.execute("CREATE TABLE r (id uuid PRIMARY KEY, data text, details text, a int8, b int8, at float8)")
    facts = [uuid4() for _ in range(4)]

    async def add(batch: Batch) -> None:
        rows = [(id_, *facts, time.time(), TEXT) for id_ in batch]
        await raw.executemany("INSERT INTO t VALUES ($1,$2,$3,$4,$5,$6,$7)", rows)

    async def finish(batch: Batch) -> None:
        rows = [(id_, TEXT, DETAILS, 1, 2, time.time()) for id_ in batch]
        await raw.executemany("INSERT INTO r VALUES ($1,$2,$3,$4,$5,$6)", rows)

    return Subject(add, finish, raw.close)


async def compare(name: str, ours: Subject, bare: Subject) -> None:
    rows: dict[str, dict[int, list[Row]]] = {who: {size: [] for size in TOTALS} for who in ("ours", "bare", "crowd")}
    for one in (ours, bare):
        await both(one, 100)
    for _ in range(ROUNDS):
        for size in TOTALS:
            rows["ours"][size].append(await both(ours, size))
            rows["bare"][size].append(await both(bare, size))
            if size < 1000:
                rows["crowd"][size].append(await both(ours, size, 32))
    await ours.close()
    await bare.close()
    show(name, **rows)


def show(name: str, ours: dict[int, list[Row]], bare: dict[int, list[Row]], crowd: dict[int, list[Row]]) -> None:
    table = Table(title=name, title_justify="left")
    heads = ("batch", "in /s", "results /s", "CPU us", "bare in /s", "bare results /s", "ours : bare", "worst")
    for head in (*heads, "32 callers in", "out"):
        table.add_column(head, justify="right")
    for size in TOTALS:
        ratios = [
            (1 / bare_in + 1 / bare_out) / (1 / in_ + 1 / out)
            for (in_, out, _), (bare_in, bare_out, _) in zip(ours[size], bare[size], strict=True)
        ]
        figures = [*middle(ours[size]), *middle(bare[size])[:2]]
        many = [f"{figure:,.0f}" for figure in middle(crowd[size])[:2]] if crowd[size] else ["", ""]
        cells = [f"{figure:,.0f}" for figure in figures]
        table.add_row(str(size), *cells, f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}", *many)
    Console(width=140).print(table)


def middle(rows: list[Row]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


async def sqlite_rounds(directory: str) -> None:
    for synchronous in ("FULL", "NORMAL"):
        place = f"{directory}/{synchronous}"
        ours = await store(f"sqlite:///{place}.db?synchronous={synchronous}")
        await compare(f"SQLite {synchronous}", ours, await bare_sqlite(f"{place}-bare.db", synchronous))


async def postgres_rounds(server: PrivatePostgres, name: str) -> None:
    connection = await asyncpg.connect(server.url())
    for database in ("ours", "bare"):
        await connection.execute(f"CREATE DATABASE {database}")
    await connection.close()
    await compare(name, await store(server.url("ours")), await bare_postgres(server.url("bare")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where the databases are made; the disk that is measured")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        if options.only != "postgresql":
            asyncio.run(sqlite_rounds(directory))
    if options.only != "sqlite" and server_programs():
        with PrivatePostgres(fsync=True) as server:
            asyncio.run(postgres_rounds(server, "PostgreSQL, fsync"))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    main()
