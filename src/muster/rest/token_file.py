"""The file that keeps a person's tokens: private, replaced as a whole, and changed by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from muster.errors import ConfigInvalid

NAME: Final = "tokens.json"


class KeptToken(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The token for one resource server, and what renews it."""

    access_token: str
    scope: str
    expires_at_s: float
    renewed_at_s: float
    refresh_token: str | None = None


class ServiceTokens(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that one login at one service gave us."""

    client_id: str
    identity_id: str | None = None
    servers: dict[str, KeptToken] = {}


def muster_home() -> Path:
    """MUSTER_HOME, or ~/.muster."""
    return Path(os.environ.get("MUSTER_HOME") or "~/.muster").expanduser()


class TokenFile:
    """Tokens by service URL."""

    def __init__(self, home: Path | None = None) -> None:
        self.path = (home or muster_home()) / NAME

    def read(self, url: str) -> ServiceTokens | None:
        """What is kept for this service; ConfigInvalid when others could have read it too."""
        return self._all().get(url)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time renews or replaces tokens: a refresh token works once."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def write(self, url: str, tokens: ServiceTokens | None) -> None:
        """Replace what is kept for this service (None: forget it). Call it while `locked`."""
        everything = self._all()
        everything.pop(url, None)
        if tokens is not None:
            everything[url] = tokens
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(everything)))
            file.flush()
            os.fsync(file.fileno())  # the old refresh token is void already: losing the new one means a new login
        fresh.replace(self.path)

    def _all(self) -> dict[str, ServiceTokens]:
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno())
                data = file.read()
        except FileNotFoundError:
            return {}
        if mode.st_mode & 0o077 or mode.st_uid != os.geteuid():
            raise ConfigInvalid(file=self.path, why="only you may own and read this file; run `chmod 600` on it")
        try:
            return msgspec.json.decode(data, type=dict[str, ServiceTokens])
        except msgspec.DecodeError as problem:
            raise ConfigInvalid(file=self.path, why=f"it cannot be read ({problem}); remove it and log in") from problem
