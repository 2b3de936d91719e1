"""The truth: every accepted task and every result, in SQLite or PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.store.contract import Store

__all__ = ["open_store"]


async def open_store(url: str) -> Store:
    """Open, and create or migrate, the database behind `sqlite:///ABSOLUTE/PATH` or `postgresql://...`.

    SQLite takes `?synchronous=NORMAL` from those who would rather lose the last moments at a power cut than wait for
    the disk; the default, FULL, has every answered call on the disk.
    """
    from muster.store.opening import open_url  # SQLAlchemy is slow to import: only who opens a store pays

    return await open_url(url)
