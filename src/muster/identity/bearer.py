"""From an Authorization header to a Principal, with a memory of a few seconds."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from muster.errors import NotPermitted, Unauthenticated
from muster.identity.secret import digest
from muster.model.identity import Identity, Principal
from muster.store.contract import Grant, IdentityStore

REMEMBERED_S: Final = 5.0
LIMIT_REMEMBERED: Final = 10_000
LONGEST_TOKEN: Final = 512


class TokenData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What access and refresh tokens carry beside the common columns."""

    server: str


@dataclass(frozen=True, slots=True)
class _Known:
    grant: Grant
    principal: Principal
    until_s: float  # monotonic


class Bearer:
    """Looks tokens up. Revocation in this process counts at once, in another one after REMEMBERED_S."""

    def __init__(self, store: IdentityStore) -> None:
        self._store = store
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._changes = 0

    async def principal(self, header: str | None, resource_server: str) -> Principal:
        """Unauthenticated without a good token; NotPermitted when it is one for another resource server."""
        known = await self._look_up(_token(header))
        if known.grant.expires_at_s <= time.time():
            raise Unauthenticated(why="your access token has expired")
        if resource_server not in known.principal.issued_for:
            theirs = ", ".join(sorted(known.principal.issued_for))
            raise NotPermitted(why=f"this token is for {theirs}, not for {resource_server}")
        return known.principal

    async def person(self, grant: Grant) -> Principal:
        """Who stands behind a grant; Unauthenticated when the identity is gone."""
        identity = await self._store.identity(grant.identity) if grant.identity is not None else None
        if identity is None:
            raise Unauthenticated(why="the identity of this token no longer exists")
        return Principal(
            identity=identity,
            linked=tuple(await self._store.linked_to(identity.id)),
            scopes=frozenset(grant.scope.split()),
            client_id=str(grant.client or ""),
            authenticated_at_s=None if grant.authenticated_at_s is None else int(grant.authenticated_at_s),
            issued_for=frozenset({server_of(grant)}) if grant.kind in {"access", "refresh"} else frozenset(),
        )

    def forget(self, digest_: bytes | None = None, family: UUID | None = None, person: Identity | None = None) -> None:
        """What was remembered may be wrong now: after a revocation, or a new login of this person."""
        self._changes += 1
        gone = [
            key
            for key, known in self._known.items()
            if key == digest_
            or (family is not None and known.grant.family == family)
            or (person is not None and person.id in {i.id for i in known.principal.identities})
        ]
        for key in gone:
            del self._known[key]

    async def _look_up(self, token: str) -> _Known:
        key, now_s = digest(token), time.monotonic()
        known = self._known.get(key)
        if known is not None and known.until_s > now_s:
            return known
        changes = self._changes
        grant = await self._store.grant(key, "access")
        if grant is None:
            self._known.pop(key, None)
            raise Unauthenticated(why="your access token is unknown or was revoked")
        known = _Known(grant, await self.person(grant), now_s + REMEMBERED_S)
        if changes == self._changes:  # else it may have been revoked while we read
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > LIMIT_REMEMBERED:
                self._known.popitem(last=False)
        return known


def server_of(grant: Grant) -> str:
    return msgspec.json.decode(grant.data, type=TokenData).server


def _token(header: str | None) -> str:
    kind, _, token = (header or "").partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN:
        raise Unauthenticated(why="send an access token as `Authorization: Bearer ...`")
    return token
