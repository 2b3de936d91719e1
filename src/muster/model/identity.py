"""Who somebody is, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Identity:
    """One name that one issuer vouches for."""

    id: UUID
    username: str  # always user@domain
    name: str = ""
    email: str | None = None
    organization: str | None = None
    issuer: str = ""  # the identity provider's id or URL
    issuer_name: str = ""
    status: str = "used"  # anything but "used" or "private" is unmappable for the official endpoint
    last_authentication_s: int | None = None  # unix seconds

    @property
    def domain(self) -> str:
        return self.username.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: primary identity, the ones linked to it, what the token was granted."""

    identity: Identity
    linked: tuple[Identity, ...] = ()  # never contains the primary one
    scopes: frozenset[str] = frozenset()
    client_id: str = ""
    authenticated_at_s: int | None = None
    issued_for: frozenset[str] = field(default_factory=frozenset)  # resource servers

    @property
    def id(self) -> UUID:
        return self.identity.id

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The whole set, the primary one first."""
        return (self.identity, *self.linked)

    def is_any_of(self, ids: frozenset[UUID]) -> bool:
        return any(identity.id in ids for identity in self.identities)
