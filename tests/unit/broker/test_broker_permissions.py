from __future__ import annotations

import hashlib
from itertools import product
from uuid import UUID

import pytest

from muster.broker.permissions import allows, check_password, may_look
from muster.model.account import AccountKind, BrokerAccount
from muster.wire import topology

ME, OTHER, GROUP = UUID(int=1), UUID(int=2), UUID(int=3)
QUEUES = {
    "my commands": topology.commands_queue(ME),
    "other commands": topology.commands_queue(OTHER),
    "my tasks": topology.tasks_queue(ME),
    "other tasks": topology.tasks_queue(OTHER),
    "my group": topology.group_queue(ME, GROUP),
    "other group": topology.group_queue(OTHER, GROUP),
    "results": topology.RESULTS,
    "heartbeats": topology.HEARTBEATS,
    "nothing": "",
    "nonsense": f"x{topology.group_queue(ME, GROUP)}",
}
READS = {
    AccountKind.MANAGER: {"my commands"},
    AccountKind.USER_ENDPOINT: {"my tasks"},
    AccountKind.READER: {"my group"},
}
EXCHANGES = ["commands", "tasks", "results", "heartbeats", "", "amq.topic", "amq.direct"]
WRITES = {
    AccountKind.MANAGER: {("heartbeats", f"{ME}.heartbeats")},
    AccountKind.USER_ENDPOINT: {("heartbeats", f"{ME}.heartbeats"), ("results", f"{ME}.results")},
    AccountKind.READER: set[tuple[str, str]](),
}
KEYS = [f"{who}.{what}" for who in (ME, OTHER) for what in ("results", "heartbeats", "tasks", "commands")]
KEYS += ["", "#", "*.results", str(ME)]


def an(kind: AccountKind, expires_at_s: float | None = None) -> BrokerAccount:
    return BrokerAccount("name", hashlib.sha256(b"secret").digest(), kind, ME, expires_at_s)


@pytest.mark.parametrize(("kind", "queue"), [*product(AccountKind, QUEUES)])
def test_each_reads_its_own_queue_and_no_other(kind: AccountKind, queue: str) -> None:
    assert allows(an(kind), "read", "queue", QUEUES[queue]) is (queue in READS[kind])


@pytest.mark.parametrize(("kind", "exchange"), [*product(AccountKind, EXCHANGES)])
def test_each_writes_only_to_the_exchanges_of_its_kind(kind: AccountKind, exchange: str) -> None:
    expected = exchange in {name for name, _ in WRITES[kind]}
    assert allows(an(kind), "write", "exchange", exchange) is expected


@pytest.mark.parametrize(("kind", "exchange", "key"), [*product(AccountKind, EXCHANGES, [*KEYS, None])])
def test_each_writes_only_under_its_own_key(kind: AccountKind, exchange: str, key: str | None) -> None:
    assert allows(an(kind), "write", "topic", exchange, key) is ((exchange, key) in WRITES[kind])


@pytest.mark.parametrize(("kind", "resource"), [*product(AccountKind, ("exchange", "queue", "topic"))])
def test_nobody_configures_anything(kind: AccountKind, resource: str) -> None:
    for name in (*QUEUES.values(), *EXCHANGES):
        assert not allows(an(kind), "configure", resource, name, f"{ME}.results")  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "name"), [*product(AccountKind, [*QUEUES.values(), *EXCHANGES])])
def test_nobody_writes_to_a_queue_or_reads_an_exchange(kind: AccountKind, name: str) -> None:
    assert not allows(an(kind), "write", "queue", name)
    assert not allows(an(kind), "read", "exchange", name)
    assert not allows(an(kind), "read", "topic", name, f"{ME}.results")


def test_publishers_may_look_at_the_exchange_and_queue_they_publish_to_and_at_nothing_of_others() -> None:
    worker = an(AccountKind.USER_ENDPOINT)
    for name in ("results", "heartbeats"):
        assert may_look(worker, "exchange", name)
        assert may_look(worker, "queue", name)
    assert not may_look(worker, "queue", topology.tasks_queue(OTHER))
    assert not may_look(worker, "exchange", "tasks")
    assert not may_look(an(AccountKind.READER), "queue", "results")


@pytest.mark.parametrize("password", ["", "Secret", "secret ", "secre", "\0"])
def test_only_the_right_password_opens(password: str) -> None:
    assert check_password(an(AccountKind.READER), password, 0) is None
    assert check_password(an(AccountKind.READER), "secret", 0) is not None


def test_an_unknown_account_has_no_password() -> None:
    assert check_password(None, "secret", 0) is None


def test_an_account_ends_at_its_expiry() -> None:
    short = an(AccountKind.READER, expires_at_s=100)
    assert check_password(short, "secret", 99.9) is short
    assert check_password(short, "secret", 100) is None
