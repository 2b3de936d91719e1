"""Broker accounts: every endpoint, user endpoint and reader gets its own random password, kept as a digest only."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from muster.model.account import AccountKind, BrokerAccount
from muster.service.chores import Chores
from muster.service.settings import Settings
from muster.store.contract import ComputeStore

log = logging.getLogger(__name__)

Authorise = Callable[[str, str], Awaitable[BrokerAccount | None]]


class BrokerGate(Protocol):
    """What the service asks of whichever broker there is, beside the transport."""

    def url(self, username: str, password: str) -> str:
        """Where a party outside connects, with these credentials in it."""

    async def disconnect(self, usernames: Sequence[str]) -> None:
        """Close what these have open."""


def authoriser(store: ComputeStore) -> Authorise:
    """The broker's question `who is that`, answered from the store."""

    async def authorise(username: str, password: str) -> BrokerAccount | None:
        account = await store.account(username)
        digest = sha256(password.encode()).digest()
        if account is None or not hmac.compare_digest(digest, account.password_sha256):
            return None
        return account if await still_good(store, account) else None

    return authorise


async def still_good(store: ComputeStore, account: BrokerAccount) -> bool:
    """Not expired; a user endpoint that never said goodbye may come back however long it has been running."""
    if account.expires_at_s is None or account.expires_at_s > time.time():
        return True
    if account.kind is not AccountKind.USER_ENDPOINT:
        return False
    report = await store.report(account.subject)
    return report is not None and json.loads(report[0]).get("active") is True


class Credentials:
    """Issues and revokes; what is revoked is disconnected, too."""

    def __init__(self, store: ComputeStore, gate: BrokerGate, settings: Settings, chores: Chores) -> None:
        self._store = store
        self._gate = gate
        self._settings = settings
        self._chores = chores

    async def issue(self, kind: AccountKind, subject: UUID, *, lasting: bool = False) -> tuple[str, str]:
        """A new username, and the URL that carries it and its password."""
        username = f"{kind}-{subject}-{secrets.token_hex(4)}"
        password = secrets.token_urlsafe(32)
        expires = None if lasting else time.time() + self._settings.account_s
        digest = sha256(password.encode()).digest()
        await self._store.put_account(BrokerAccount(username, digest, kind, subject, expires))
        return username, self._gate.url(username, password)

    async def revoke(self, subject: UUID, except_username: str | None = None) -> None:
        usernames = await self._store.revoke_accounts(subject, except_username)
        if usernames:
            log.info("revoked %d broker account(s) of %s", len(usernames), subject)
            await self._gate.disconnect(usernames)

    def revoke_soon(self, subject: UUID) -> None:
        self._chores.start(self._revoke_later(subject), f"revoke {subject}")

    async def _revoke_later(self, subject: UUID) -> None:
        await asyncio.sleep(self._settings.revoke_delay_s)
        await self.revoke(subject)
