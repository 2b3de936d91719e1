"""The seam to the database. One implementation, two databases: `muster.store.sql` on SQLite (WAL) and PostgreSQL.

Every method is atomic and returns after commit. Identifiers are `uuid.UUID`, times unix seconds (float; a creation or
completion time of 0.0 becomes now), secrets only as digests. A database that is away, full or read-only: `StoreOutage`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from muster.model.account import BrokerAccount
from muster.model.endpoint import Endpoint, UserEndpoint, UserEndpointKey
from muster.model.function import Function
from muster.model.identity import Identity
from muster.model.policy import Policy
from muster.model.task import Outcome, Task, TaskGroup


@dataclass(frozen=True, slots=True)
class Finished:
    """What a first result changed: who waits for it."""

    task: UUID
    group: UUID
    endpoint: UUID


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A registered OAuth client. `identity`: who it is, under client credentials. Public clients have no secret."""

    id: UUID
    name: str
    identity: UUID | None = None
    secret_sha256: bytes | None = None
    redirect_uris: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """One issued secret: access token, refresh token, authorization code, device code or login session.

    `digest` is the SHA-256 of the secret. `data` is JSON of the kind's own: code challenge, redirect URI, user code ...
    """

    digest: bytes
    kind: str  # "access" | "refresh" | "code" | "device" | "session"
    client: UUID | None
    identity: UUID | None  # None: a device code nobody approved yet
    scope: str
    expires_at_s: float
    issued_at_s: float
    family: UUID | None = None  # tokens of one login: revoking one refresh token can end them all
    authenticated_at_s: float | None = None
    data: str = "{}"


class IdentityStore(Protocol):
    """What the identity provider keeps."""

    async def add_identity(self, identity: Identity, password_hash: str | None = None) -> Identity:
        """Conflict when the username is taken (case-insensitively)."""

    async def set_password(self, identity: UUID, password_hash: str) -> None: ...
    async def password_hash(self, username: str) -> tuple[UUID, str] | None: ...
    async def link_identities(self, one: UUID, other: UUID) -> None:
        """Both, and all linked to either, become one set."""

    async def identity(self, id_: UUID) -> Identity | None: ...
    async def identities(self, ids: Sequence[UUID], usernames: Sequence[str] = ()) -> list[Identity]: ...
    async def all_identities(self, limit: int = 10_000) -> list[Identity]:
        """In order of their user names."""

    async def linked_to(self, id_: UUID) -> list[Identity]:
        """The rest of its set, without itself."""

    async def touch_authentication(self, id_: UUID, at_s: int) -> None: ...
    async def add_client(self, client: OAuthClient) -> None: ...
    async def client(self, id_: UUID) -> OAuthClient | None: ...
    async def clients(self) -> list[OAuthClient]: ...
    async def add_grant(self, *grants: Grant) -> None: ...
    async def grant(self, digest: bytes, kind: str) -> Grant | None:
        """Also when it has expired: the caller decides what to say. Not when it was revoked or used up."""

    async def take_grant(self, digest: bytes, kind: str) -> Grant | None:
        """Find and remove in one step: a code or a rotated refresh token works once, even for two racing callers."""

    async def replace_grant(self, grant: Grant) -> None:
        """Same digest, new contents (a device code that was approved). NotFound when it was used up or revoked."""

    async def device_by_user_code(self, user_code: str) -> Grant | None:
        """`data` of a device grant is a JSON object with the code under `user_code`."""

    async def revoke_family(self, family: UUID) -> None: ...
    async def revoke_identity(self, identity: UUID) -> int:
        """All grants of this identity, of every kind; how many there were."""

    async def purge_grants(self, before_s: float) -> int: ...
    async def add_project(self, id_: UUID, owner: UUID, document: str) -> None: ...
    async def projects(self, owners: Sequence[UUID]) -> list[tuple[UUID, str]]: ...
    async def add_policy(self, policy: Policy) -> None: ...
    async def policy(self, id_: UUID) -> Policy | None: ...


class ComputeStore(Protocol):
    """What the compute service keeps."""

    async def add_function(self, function: Function) -> None: ...
    async def function(self, id_: UUID) -> Function | None: ...
    async def delete_function(self, id_: UUID) -> None: ...

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        """Insert, or replace what its owner registered before, but its age and its lock (see `lock_endpoint`).
        Conflict when the id belongs to someone else, even if they have deleted it.
        """

    async def endpoint(self, id_: UUID) -> Endpoint | None: ...
    async def endpoints(self, owners: Sequence[UUID]) -> list[Endpoint]:
        """Owned or administered by any of these, oldest first."""

    async def all_endpoints(self) -> list[Endpoint]:
        """Not deleted; for rebuilding the broker's queues."""

    async def delete_endpoint(self, id_: UUID) -> None: ...
    async def lock_endpoint(self, id_: UUID, until_s: float) -> None: ...
    async def save_report(self, id_: UUID, state: str, at_s: float) -> None:
        """The last status report (JSON) of an endpoint or user endpoint."""

    async def report(self, id_: UUID) -> tuple[str, float] | None: ...

    async def claim_user_endpoint(self, key: UserEndpointKey, values: str, runtime: str) -> UserEndpoint:
        """Reserve the id for this identity, or find it again; NotPermitted when it belongs to someone else.
        One atomic statement. Updates `runtime`.
        """

    async def user_endpoint(self, id_: UUID) -> UserEndpoint | None: ...
    async def user_endpoints(self, manager: UUID) -> list[UserEndpoint]: ...
    async def set_bundles(self, user_endpoint: UUID, bundles: bool) -> None: ...

    async def put_account(self, account: BrokerAccount) -> None:
        """Insert, or give it a new password and expiry. Conflict when the username is another subject's."""

    async def account(self, username: str) -> BrokerAccount | None: ...
    async def revoke_accounts(self, subject: UUID, except_username: str | None = None) -> list[str]:
        """Usernames that no longer work, so that their connections can be closed."""

    async def purge_accounts(self, before_s: float) -> list[str]: ...

    async def claim_group(self, group: TaskGroup) -> TaskGroup:
        """Insert, or find it again; NotPermitted when it belongs to someone else."""

    async def group(self, id_: UUID) -> TaskGroup | None: ...
    async def set_group_bundles(self, id_: UUID, bundles: bool) -> None: ...
    async def recent_groups(self, since_s: float) -> list[TaskGroup]:
        """Created, claimed or attached to since then; ten minutes more rather than less."""

    async def group_tasks(self, id_: UUID) -> list[tuple[UUID, float]]:
        """Task ids with their creation times, in order of submission."""

    async def add_tasks(self, tasks: Sequence[Task]) -> list[UUID]:
        """Commit a batch (calls that arrive together share one commit). Repeating a task of the same owner, group and
        function changes nothing; returns the ids that were new. Conflict when an id is somebody else's.
        """

    async def finish(self, outcomes: Sequence[Outcome], endpoint: UUID | None = None) -> list[Finished]:
        """Record results, the first one of each task only; returns what was new. With `endpoint`, outcomes of tasks
        that belong to another endpoint are ignored: bodies are forgeable, routing keys are not.
        """

    async def tasks(self, ids: Sequence[UUID]) -> dict[UUID, Task]:
        """Those that are known. A finished task has lost payload, resources and serializers."""

    async def outcomes(self, ids: Sequence[UUID]) -> dict[UUID, Outcome]: ...
    async def result_sizes(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """How large the results of these tasks are, in bytes; nothing of those that have none."""

    async def group_results(self, group: UUID, since_s: float) -> list[tuple[UUID, int]]:
        """Which tasks ended since then, in that order, and the size of each result."""

    async def unfinished(self, endpoint: UUID, after: UUID | None = None, limit: int = 1000) -> list[Task]:
        """Pending tasks of this endpoint in order of submission, a page at a time."""

    async def endpoints_with_unfinished(self) -> list[UUID]: ...
    async def unfinished_before(self, created_before_s: float, limit: int = 1000) -> list[UUID]:
        """Tasks nobody has touched for too long."""

    async def purge_results(self, completed_before_s: float, limit: int = 10_000) -> int:
        """Results and their tasks."""


class Store(IdentityStore, ComputeStore, Protocol):
    """Open with `muster.store.open_store(url)`."""

    async def close(self) -> None: ...
    async def setting(self, name: str, default: bytes) -> bytes:
        """A value the service keeps (signing key ...): the stored one, else `default` is stored. Atomic."""

    async def load(self) -> Mapping[str, int]:
        """Row counts and backlog, for metrics."""
