"""Credentials for the broker: one account per party, good for its own queues only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class AccountKind(StrEnum):
    """Who holds it; decides what it may touch (see `muster.broker.permissions`)."""

    MANAGER = "manager"
    USER_ENDPOINT = "user_endpoint"  # a single-user endpoint, too: it has the same queues
    READER = "reader"  # an SDK that reads its identity's results


@dataclass(frozen=True, slots=True)
class BrokerAccount:
    """`username` is public, the password is stored as a digest only."""

    username: str
    password_sha256: bytes
    kind: AccountKind
    subject: UUID  # the endpoint, the user endpoint, or (READER) the identity
    expires_at_s: float | None = None
