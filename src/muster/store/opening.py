"""From a URL to an open store."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from muster.errors import ConfigInvalid
from muster.store.contract import Store
from muster.store.sql import SqlStore

SYNCHRONOUS = ("FULL", "NORMAL", "EXTRA")


async def open_url(url: str) -> Store:
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return await _open_sqlite(url)
    if parts.scheme in {"postgresql", "postgres"}:
        from muster.store.postgres import PostgresDatabase  # asyncpg is only for those who use it

        return SqlStore(await PostgresDatabase.open(url))
    raise ConfigInvalid(
        file="store", why=f"{parts.scheme or 'no scheme'}: use sqlite:///PATH or postgresql://HOST/NAME"
    )


async def _open_sqlite(url: str) -> Store:
    from muster.store.sqlite import SqliteDatabase

    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    synchronous = options.pop("synchronous", "FULL").upper()
    if parts.netloc or not parts.path.strip("/"):
        raise ConfigInvalid(file="store", why="write sqlite:///ABSOLUTE/PATH: three slashes, then the path")
    if options or synchronous not in SYNCHRONOUS:
        wrong = next(iter(options), f"synchronous={synchronous}")
        raise ConfigInvalid(file="store", why=f"{wrong}: the one option is synchronous={'|'.join(SYNCHRONOUS)}")
    return SqlStore(await SqliteDatabase.open("/" + unquote(parts.path).lstrip("/"), synchronous))
