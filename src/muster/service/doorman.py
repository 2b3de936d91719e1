"""The doorman: answers RabbitMQ's HTTP authorisation backend with the very rules of the embedded broker."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Literal

from muster.broker.permissions import allows
from muster.errors import NotFound
from muster.model.account import BrokerAccount
from muster.service.credentials import authoriser, still_good
from muster.store.contract import ComputeStore

Action = Literal["configure", "write", "read"]


class Doorman:
    """Reachable only for whoever knows the secret in the path."""

    def __init__(self, store: ComputeStore, secret: str) -> None:
        self._store = store
        self._secret = secret
        self._authorise = authoriser(store)

    def admit(self, secret: str) -> None:
        """NotFound for whoever does not know the secret: the page is not there for them."""
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            raise NotFound(thing="page", name="broker")

    async def allows(self, kind: str, facts: Mapping[str, str]) -> bool:
        """The answer to one question; `admit` comes first."""
        if kind == "user":
            return await self._user(facts)
        account = await self._store.account(facts.get("username", ""))
        if account is None or not await still_good(self._store, account):
            return False
        if kind == "vhost":
            return True
        action = _action(facts.get("permission", ""))
        if action is None:
            return False
        if kind == "resource":
            return _resource(account, action, facts)
        if kind == "topic":
            return allows(account, action, "topic", facts.get("name", ""), facts.get("routing_key", ""))
        return False

    async def _user(self, facts: Mapping[str, str]) -> bool:
        """Credentials, or (without a password) whether the name still stands."""
        username = facts.get("username", "")
        if "password" not in facts:
            account = await self._store.account(username)
            return account is not None and await still_good(self._store, account)
        return await self._authorise(username, facts["password"]) is not None


def _action(text: str) -> Action | None:
    return text if text in ("configure", "write", "read") else None  # type: ignore[return-value]


def _resource(account: BrokerAccount, action: Action, facts: Mapping[str, str]) -> bool:
    name = facts.get("name", "")
    if facts.get("resource") == "queue":
        return allows(account, action, "queue", name)
    return facts.get("resource") == "exchange" and allows(account, action, "exchange", name)
