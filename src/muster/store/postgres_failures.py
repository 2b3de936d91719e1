"""What asyncpg's exceptions mean; the counterpart of `muster.store.failures`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from muster.errors import Conflict, Invalid, StoreOutage

# By class of SQLSTATE. 42 (syntax, unknown column) and the rest are bugs and stay what they are, except these.
INTEGRITY, DATA, RETRY = "23", "22", "40"
AWAY = ("08", "28", "3D", "53", "54", "55", "57", "58", "XX", RETRY)
READ_ONLY = "25006"
DENIED = "42501"


@contextmanager
def postgres_failures() -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, UnicodeEncodeError) as why:
        cause = _cause(why)
        state = str(getattr(cause, "sqlstate", None) or "")
        if state.startswith(INTEGRITY):
            raise Conflict(str(cause), why="It exists already, or refers to something that does not.") from why
        if state.startswith(DATA) or isinstance(cause, UnicodeEncodeError):
            raise Invalid(str(cause), why="a text or number cannot be stored (a NUL, or not valid Unicode)") from why
        if state.startswith(AWAY) or state in {READ_ONLY, DENIED} or _is_lost(cause):
            raise StoreOutage(f"PostgreSQL: {cause}") from why
        raise
    except (OSError, TimeoutError, NoConnectionFree) as why:
        raise StoreOutage(f"PostgreSQL: {str(why) or 'no answer in time'}") from why


def asks_to_retry(why: Exception) -> bool:
    """A deadlock or a serialisation failure: the transaction was undone, and would have worked a moment later."""
    return str(getattr(_cause(why), "sqlstate", None) or "").startswith(RETRY)


def _is_lost(cause: BaseException) -> bool:
    if isinstance(cause, (OSError, TimeoutError)):
        return True
    return isinstance(cause, asyncpg.InterfaceError) and not isinstance(cause, ValueError)


def _cause(why: BaseException) -> BaseException:
    """SQLAlchemy wraps its own copy of the driver's error, which remembers the original."""
    if isinstance(why, DBAPIError) and why.orig is not None:
        return why.orig.__cause__ or why.orig
    return why
