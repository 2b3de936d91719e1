"""Endpoints, and the user endpoints that managers start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Self
from uuid import UUID, uuid5

_DERIVED = 5  # the version of ids that are made of a name; endpoints have any other


class EndpointKind(StrEnum):
    """What registered: one that starts user endpoints, or one that runs tasks itself."""

    MANAGER = "manager"
    SINGLE = "single"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a site registered."""

    id: UUID
    owner: UUID
    name: str
    kind: EndpointKind
    display_name: str | None = None
    public: bool = False
    multi_user: bool = False  # privileged: maps identities to accounts
    allowed_functions: tuple[UUID, ...] | None = None  # None: any
    policy: UUID | None = None
    admins: tuple[UUID, ...] = ()
    metadata: str = "{}"  # JSON as registered: versions, hostname, local user, template, schema
    seal_key: bytes | None = None  # shared with the site's root, see wire.order
    bundles: bool = False  # a single-user endpoint that reads and writes bundles
    locked_until_s: float = 0.0
    created_at_s: float = 0.0

    def administered_by(self, ids: frozenset[UUID]) -> bool:
        return self.owner in ids or bool(ids.intersection(self.admins))


@dataclass(frozen=True, slots=True)
class UserEndpointKey:
    """The three facts that decide which user endpoint a request belongs to (the seed's tuple)."""

    endpoint: UUID
    identity: UUID
    config: str  # digest, so that secrets in the values never reach a log line

    @classmethod
    def of(cls, endpoint: UUID, identity: UUID, values: Mapping[str, object]) -> Self:
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return cls(endpoint, identity, sha256(canonical.encode()).hexdigest())

    @property
    def id(self) -> UUID:
        """Same facts, same id, on any machine and after any restart."""
        return uuid5(self.endpoint, f"{self.identity}/{self.config}")

    @staticmethod
    def claims(id_: UUID) -> bool:
        """Whether an id looks like one made here: whoever registered under it would read somebody's tasks."""
        return id_.version == _DERIVED

    @property
    def name(self) -> str:
        """Its name at the manager and of its directory: `uep.MANAGER.ID`, as in the seed."""
        return f"uep.{self.endpoint}.{self.id}"


@dataclass(frozen=True, slots=True)
class UserEndpoint:
    """A claimed user endpoint: the id belongs to this person for good."""

    key: UserEndpointKey
    values: str = "{}"  # JSON, as submitted
    runtime: str = "{}"  # JSON, the last submitter's user_runtime
    bundles: bool = False  # announced by its last check-in
    created_at_s: float = 0.0

    @property
    def id(self) -> UUID:
        return self.key.id
