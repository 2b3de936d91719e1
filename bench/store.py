"""`python bench/store.py`: tasks in and results in, beside the bare drivers doing the least one could call the same.

Bare: one table of tasks, one of results, no idempotency, no rejection of second results, no queue of unfinished work.
Both with and without waiting for the disk (`synchronous`, `synchronous_commit`). About a quarter of a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
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
TOTALS = {1: 400, 10: 2000, 100: 6000, 1000: 10_000}
Batch = list[UUID]
Step = Callable[[Batch], Awaitable[object]]
Row = tuple[float, float, float]


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


async def both(add: Step, finish: Step, size: int, callers: int = 1) -> Row:
    batches = [[new_id() for _ in range(size)] for _ in range(TOTALS[size] // size)]
    cpu = time.process_time()
    into = await rate(add, batches, callers)
    out = await rate(finish, batches, callers)
    return into, out, (time.process_time() - cpu) / sum(map(len, batches)) * 1e6


async def of_the_store(url: str, callers: int) -> dict[int, Row]:
    store = await open_store(url)
    group, owner, endpoint, function = (uuid4() for _ in range(4))

    async def add(batch: Batch) -> object:
        now_s = time.time()
        return await store.add_tasks(
            [Task(id_, group, owner, endpoint, function, TEXT, None, (), now_s) for id_ in batch]
        )

    async def finish(batch: Batch) -> object:
        now_s = time.time()
        return await store.finish([Outcome(id_, TEXT, None, DETAILS, 1, 2, now_s) for id_ in batch], endpoint)

    await both(add, finish, 100)
    found = {size: await both(add, finish, size, callers if size < 1000 else 1) for size in TOTALS}
    await store.close()
    return found


async def of_bare_sqlite(path: str, synchronous: str) -> dict[int, Row]:
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

    found = {size: await both(add, finish, size) for size in TOTALS}
    raw.close()
    return found


async def of_bare_postgres(url: str) -> dict[int, Row]:
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

    found = {size: await both(add, finish, size) for size in TOTALS}
    await raw.close()
    return found


def show(name: str, ours: dict[int, Row], crowd: dict[int, Row] | None, bare: dict[int, Row]) -> None:
    table = Table(title=name, title_justify="left")
    for head in (
        "batch",
        "in /s",
        "results /s",
        "CPU us",
        "bare in /s",
        "bare results /s",
        "ours : bare",
        "32 callers in",
        "out",
    ):
        table.add_column(head, justify="right")
    for size in TOTALS:
        (in_, out, cpu), (bare_in, bare_out, _) = ours[size], bare[size]
        ratio = (1 / bare_in + 1 / bare_out) / (1 / in_ + 1 / out)
        many = crowd[size][:2] if crowd and size < 1000 else None
        cells = [f"{many[0]:,.0f}", f"{many[1]:,.0f}"] if many else ["", ""]
        table.add_row(
            str(size),
            f"{in_:,.0f}",
            f"{out:,.0f}",
            f"{cpu:.0f}",
            f"{bare_in:,.0f}",
            f"{bare_out:,.0f}",
            f"{ratio:.2f}",
            *cells,
        )
    Console(width=130).print(table)


async def sqlite_rounds(directory: str) -> None:
    for synchronous in ("FULL", "NORMAL"):
        place = f"{directory}/{synchronous}"
        ours = await of_the_store(f"sqlite:///{place}.db?synchronous={synchronous}", 1)
        crowd = await of_the_store(f"sqlite:///{place}-crowd.db?synchronous={synchronous}", 32)
        show(f"SQLite {synchronous}", ours, crowd, await of_bare_sqlite(f"{place}-bare.db", synchronous))


async def postgres_rounds(server: PrivatePostgres, name: str) -> None:
    connection = await asyncpg.connect(server.url())
    for database in ("ours", "crowd", "bare"):
        await connection.execute(f"CREATE DATABASE {database}")
    await connection.close()
    ours = await of_the_store(server.url("ours"), 1)
    crowd = await of_the_store(server.url("crowd"), 32)
    show(name, ours, crowd, await of_bare_postgres(server.url("bare")))


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
