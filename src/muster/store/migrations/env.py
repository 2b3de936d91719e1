"""Run by Alembic: use the connection and the transaction of whoever opens the store."""

from __future__ import annotations

from alembic import context

from muster.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
