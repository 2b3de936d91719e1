"""Every test of this directory runs on both databases, each time on an empty one."""

from __future__ import annotations

import asyncio
import os
from itertools import count
from uuid import UUID, uuid4

import asyncpg
import pytest

from muster.model.identity import Identity
from muster.model.task import Task, TaskGroup
from muster.store import open_store
from muster.store.tables import metadata
from muster.testing.postgres import PrivatePostgres, server_programs

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres():
    if server_programs() is None:
        assert not os.environ.get("CI"), "CI must have a PostgreSQL server"
        pytest.skip("no PostgreSQL server programs on this machine")
    with PrivatePostgres() as server:
        yield server


async def sql(url: str, statement: str):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


@pytest.fixture
async def empty_postgresql_url(postgres):
    name = f"empty_{next(_numbers)}"
    await sql(postgres.url(), f"CREATE DATABASE {name}")
    yield postgres.url(name)
    await sql(postgres.url(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def migrated_url(postgres):
    """One database for many tests, emptied between them: creating each anew would take most of the suite's time."""

    async def migrate() -> None:
        await sql(postgres.url(), "CREATE DATABASE migrated")
        await (await open_store(postgres.url("migrated"))).close()

    asyncio.run(migrate())
    return postgres.url("migrated")


@pytest.fixture
async def postgresql_url(migrated_url):
    yield migrated_url
    tables = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
    await sql(migrated_url, f"TRUNCATE {tables} RESTART IDENTITY")


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path}/muster.db"


@pytest.fixture(params=DATABASES)
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(params=DATABASES)
def empty_url(request):
    return request.getfixturevalue(f"{request.param}_url".replace("postgresql", "empty_postgresql"))


@pytest.fixture
async def store(url):
    opened = await open_store(url)
    yield opened
    await opened.close()


@pytest.fixture
def harper():
    return Identity(uuid4(), "harper@example.org", "Harper", "harper@example.org", "Example Lab", "local", "Example")


@pytest.fixture
def alice():
    return Identity(uuid4(), "alice@example.com", "Alice", last_authentication_s=1_700_000_000)


class Job:
    """Where a test's tasks belong."""

    def __init__(self, owner: UUID) -> None:
        self.owner, self.group, self.endpoint, self.function = owner, uuid4(), uuid4(), uuid4()

    def task(self, **changes: object) -> Task:
        facts = {
            "id": uuid4(),
            "group": self.group,
            "owner": self.owner,
            "endpoint": self.endpoint,
            "function": self.function,
            "payload": "02\npayload",
            "created_at_s": 1000.5,
        }
        return Task(**(facts | changes))

    def tasks(self, number: int, **changes: object) -> list[Task]:
        return [self.task(**changes) for _ in range(number)]


@pytest.fixture
def job(harper):
    return Job(harper.id)


@pytest.fixture
async def started(store, job):
    """A store that knows the job's group."""
    await store.claim_group(TaskGroup(job.group, job.owner, created_at_s=1000.0))
    return store
