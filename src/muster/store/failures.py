"""What a driver's exception means: ask again later (`StoreOutage`), or never (`Conflict`, `Invalid`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, StatementError

from muster.errors import Conflict, Invalid, StoreOutage


@contextmanager
def sqlite_failures() -> Iterator[None]:
    """Turn what SQLite says into the error tree; bugs (wrong SQL, wrong types) stay what they are."""
    try:
        yield
    except (sqlite3.Error, DBAPIError) as why:
        cause = why.orig if isinstance(why, DBAPIError) else why
        if isinstance(cause, sqlite3.IntegrityError):
            raise Conflict(str(cause), why="It exists already, or refers to something that does not.") from why
        if isinstance(cause, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            raise
        if isinstance(cause, sqlite3.OperationalError) and _is_a_bug(cause):
            raise
        raise StoreOutage(f"SQLite: {cause}") from why
    except (StatementError, UnicodeEncodeError) as why:
        if isinstance(why, UnicodeEncodeError) or isinstance(why.orig, UnicodeEncodeError):
            raise Invalid(str(why), why="a text is not valid Unicode") from why
        raise


def _is_a_bug(cause: sqlite3.OperationalError) -> bool:
    return (
        getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    )  # "near SELEC: syntax error", "no such column"
