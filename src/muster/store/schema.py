"""Bring a database to the schema of this Muster. The caller holds the lock that keeps other processes out."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from muster.errors import StoreTooNew

VERSIONS = ("0001",)  # every migration there is, oldest first; named here so that an up-to-date start needs no Alembic


def version(connection: Connection) -> str | None:
    """What the database says it is; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def is_current(connection: Connection) -> bool:
    """Nothing to do; StoreTooNew for a database that a newer Muster has migrated."""
    found = version(connection)
    if found is not None and found not in VERSIONS:
        raise StoreTooNew(found=found, known=VERSIONS[-1])
    return found == VERSIONS[-1]


def migrate(connection: Connection) -> None:
    """Run what is missing inside the caller's transaction."""
    if is_current(connection):
        return
    from alembic import command  # slow to import, and needed once in a database's life
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "muster.store:migrations")
    command.upgrade(config, "head")
