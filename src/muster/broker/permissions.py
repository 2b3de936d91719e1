"""Who may touch what: one table, for the embedded broker and for RabbitMQ's HTTP authorisation backend alike."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Literal

from muster.model.account import AccountKind, BrokerAccount
from muster.wire import topology

Action = Literal["configure", "write", "read"]
Resource = Literal["exchange", "queue", "topic"]
Allows = Callable[[BrokerAccount, Action, Resource, str, str | None], bool]

_NOBODYS_DIGEST = bytes(32)

_READABLE: dict[AccountKind, Callable[[BrokerAccount, str], bool]] = {
    AccountKind.MANAGER: lambda account, queue: queue == topology.commands_queue(account.subject),
    AccountKind.USER_ENDPOINT: lambda account, queue: queue == topology.tasks_queue(account.subject),
    AccountKind.READER: lambda account, queue: queue.startswith(topology.group_prefix(account.subject)),
}

# Exchange -> the only routing key the account may use on it.
_WRITABLE: dict[AccountKind, dict[str, Callable[[BrokerAccount], str]]] = {
    AccountKind.MANAGER: {topology.HEARTBEATS: lambda account: topology.heartbeats_key(account.subject)},
    AccountKind.USER_ENDPOINT: {
        topology.RESULTS: lambda account: topology.results_key(account.subject),
        topology.HEARTBEATS: lambda account: topology.heartbeats_key(account.subject),
    },
    AccountKind.READER: {},
}


def allows(
    account: BrokerAccount, action: Action, resource: Resource, name: str, routing_key: str | None = None
) -> bool:
    """Whether the account may; everything that is not in the table is refused."""
    if action == "read":
        return resource == "queue" and _READABLE[account.kind](account, name)
    if action != "write":
        return False
    key = _WRITABLE[account.kind].get(name)
    if key is None:
        return False
    return resource == "exchange" or (resource == "topic" and routing_key == key(account))


def may_look(account: BrokerAccount, resource: Resource, name: str, *, rule: Allows = allows) -> bool:
    """Whether the account may ask if it exists (a passive declare): what it reads or writes, and the queue that
    stands behind an exchange it writes to, for the official publishers ask for both.
    """
    actions: tuple[Action, ...] = ("read", "write", "configure")
    if any(rule(account, action, resource, name, None) for action in actions):
        return True
    return resource == "queue" and rule(account, "write", "exchange", name, None)


def check_password(account: BrokerAccount | None, password: str, now_s: float) -> BrokerAccount | None:
    """The account when the password is its own and it has not expired; takes as long for one that does not exist."""
    expected = _NOBODYS_DIGEST if account is None else account.password_sha256
    fits = hmac.compare_digest(hashlib.sha256(password.encode()).digest(), expected)
    if account is None or not fits:
        return None
    if account.expires_at_s is not None and account.expires_at_s <= now_s:
        return None
    return account
