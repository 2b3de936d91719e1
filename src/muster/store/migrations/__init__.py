"""Alembic's revisions, run by `muster.store.schema` when a store is opened."""
