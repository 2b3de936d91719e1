from __future__ import annotations

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from muster.errors import StoreTooNew
from muster.store import open_store
from muster.store.schema import VERSIONS
from muster.store.tables import metadata


async def test_migrations_build_what_the_tables_say(store):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), metadata)

    assert await store._database.read(differences) == []


def test_every_migration_is_listed():
    config = Config()
    config.set_main_option("script_location", "muster.store:migrations")
    newest_first = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in newest_first)[::-1] == VERSIONS


async def test_the_database_of_a_newer_muster_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/muster.db"
    await (await open_store(url)).close()
    connection = sqlite3.connect(tmp_path / "muster.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreTooNew, match=r"9999.*0001"):
        await open_store(url)


@pytest.mark.postgres
async def test_a_newer_postgresql_database_is_refused_too(empty_postgresql_url):
    store = await open_store(empty_postgresql_url)
    await store._database.write(
        lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    )
    await store.close()
    with pytest.raises(StoreTooNew):
        await open_store(empty_postgresql_url)
