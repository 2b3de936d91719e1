"""Local passwords: argon2id, off the event loop, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from muster.errors import Invalid, Outage
from muster.identity.attempts import Attempts
from muster.store.contract import IdentityStore

log = logging.getLogger(__name__)

AT_ONCE: Final = 2  # each takes 64 MiB and a core
LIMIT_WAITING: Final = 32
SHORTEST: Final = 8
LONGEST: Final = 1024
WINDOW_S: Final = 900.0
PER_ACCOUNT: Final = 10
PER_ADDRESS: Final = 100


class TooManyAttempts(Outage):
    """Somebody guesses; everybody waits."""

    code = "TOO_MANY_ATTEMPTS"
    public = "Too many failed logins. Try again in {wait_s} seconds."


class Passwords:
    """Checks and sets the passwords of local accounts."""

    def __init__(self, store: IdentityStore) -> None:
        self._store = store
        self._hasher = PasswordHasher()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._by_account = Attempts(PER_ACCOUNT, WINDOW_S)
        self._by_address = Attempts(PER_ADDRESS, WINDOW_S)
        self._nobody = ""

    async def hash(self, password: str) -> str:
        """Invalid when it is too short to be one."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise Invalid(why=f"a password has {SHORTEST} to {LONGEST} characters")
        return await self._in_thread(password, None) or ""

    async def check(self, username: str, password: str, address: str) -> UUID | None:
        """Whose password this is; None for a wrong one, which takes as long as for an unknown name."""
        account = username.casefold()
        wait_s = max(self._by_account.wait_s(account), self._by_address.wait_s(address))
        if wait_s > 0:
            raise TooManyAttempts(wait_s=int(wait_s) + 1)
        known = await self._store.password_hash(username)
        if not self._nobody:
            self._nobody = await self._in_thread("nobody has this password", None) or ""
        kept = known[1] if known else self._nobody
        good = await self._in_thread(password[:LONGEST], kept) is not None
        if known is None or not good:
            self._by_account.failed(account)
            self._by_address.failed(address)
            log.warning("failed login for %.100r from %.100r", username, address)
            return None
        self._by_account.succeeded(account)
        if self._hasher.check_needs_rehash(kept):
            await self._store.set_password(known[0], await self.hash(password))
        return known[0]

    async def _in_thread(self, password: str, kept: str | None) -> str | None:
        """Hash, or with `kept` compare: the hash, or None when they differ."""
        if self._waiting >= LIMIT_WAITING:
            raise Outage(what="The login")
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(self._work, password, kept)
        finally:
            self._waiting -= 1

    def _work(self, password: str, kept: str | None) -> str | None:
        if kept is None:
            return self._hasher.hash(password)
        try:
            self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return None
        return kept
