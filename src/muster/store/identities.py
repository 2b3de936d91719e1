"""Identities, OAuth clients and grants, projects and policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, delete, insert, or_, select, update

from muster.errors import Conflict, NotFound
from muster.model.identity import Identity
from muster.model.policy import Policy
from muster.store import tables
from muster.store.contract import Grant, OAuthClient
from muster.store.queries import Queries
from muster.store.rows import fold, from_grant, to_client, to_grant, to_identity, to_policy


class IdentityQueries(Queries):
    """Implements `muster.store.contract.IdentityStore`."""

    async def add_identity(self, identity: Identity, password_hash: str | None = None) -> Identity:
        folded = fold(identity.username)
        fields = asdict(identity) | {"username_folded": folded, "password_hash": password_hash, "link_set": uuid4()}
        statement = (
            self._database.insert(tables.identity)
            .values(fields)
            .on_conflict_do_nothing()
            .returning(tables.identity.c.id)
        )
        if not await self._changed(statement):
            raise Conflict(identity.username, why=f"The username {identity.username} is taken.")
        return identity

    async def set_password(self, identity: UUID, password_hash: str) -> None:
        statement = update(tables.identity).where(tables.identity.c.id == identity).values(password_hash=password_hash)
        if not await self._change(statement):
            raise NotFound(thing="identity", name=identity)

    async def password_hash(self, username: str) -> tuple[UUID, str] | None:
        row = await self._row(select(tables.identity).where(tables.identity.c.username_folded == fold(username)))
        return None if row is None or row["password_hash"] is None else (row["id"], row["password_hash"])

    async def link_identities(self, one: UUID, other: UUID) -> None:
        def work(connection: Connection) -> None:
            self._database.serialise(
                connection, "link identities"
            )  # or two links at once could miss a third of the set
            sets = {id_: connection.execute(_link_set(id_)).scalar() for id_ in (one, other)}
            for id_, found in sets.items():
                if found is None:
                    raise NotFound(thing="identity", name=id_)
            joined = update(tables.identity).where(tables.identity.c.link_set == sets[other]).values(link_set=sets[one])
            connection.execute(joined)

        await self._database.write(work)

    async def identity(self, id_: UUID) -> Identity | None:
        row = await self._row(select(tables.identity).where(tables.identity.c.id == id_))
        return None if row is None else to_identity(row)

    async def identities(self, ids: Sequence[UUID], usernames: Sequence[str] = ()) -> list[Identity]:
        wanted = or_(
            tables.identity.c.id.in_(ids), tables.identity.c.username_folded.in_([fold(name) for name in usernames])
        )
        rows = await self._rows(select(tables.identity).where(wanted).order_by(tables.identity.c.username_folded))
        return [to_identity(row) for row in rows]

    async def all_identities(self, limit: int = 10_000) -> list[Identity]:
        everyone = select(tables.identity).order_by(tables.identity.c.username_folded).limit(limit)
        return [to_identity(row) for row in await self._rows(everyone)]

    async def linked_to(self, id_: UUID) -> list[Identity]:
        same_set = tables.identity.c.link_set == _link_set(id_).scalar_subquery()
        statement = (
            select(tables.identity)
            .where(same_set, tables.identity.c.id != id_)
            .order_by(tables.identity.c.username_folded)
        )
        return [to_identity(row) for row in await self._rows(statement)]

    async def touch_authentication(self, id_: UUID, at_s: int) -> None:
        await self._change(
            update(tables.identity).where(tables.identity.c.id == id_).values(last_authentication_s=at_s)
        )

    async def add_client(self, client: OAuthClient) -> None:
        fields = asdict(client) | {"redirect_uris": json.dumps(client.redirect_uris)}
        await self._change(insert(tables.oauth_client).values(fields))

    async def client(self, id_: UUID) -> OAuthClient | None:
        row = await self._row(select(tables.oauth_client).where(tables.oauth_client.c.id == id_))
        return None if row is None else to_client(row)

    async def clients(self) -> list[OAuthClient]:
        rows = await self._rows(
            select(tables.oauth_client).order_by(tables.oauth_client.c.name, tables.oauth_client.c.id)
        )
        return [to_client(row) for row in rows]

    async def add_grant(self, *grants: Grant) -> None:
        if grants:
            await self._change(insert(tables.oauth_grant).values([from_grant(grant) for grant in grants]))

    async def grant(self, digest: bytes, kind: str) -> Grant | None:
        row = await self._row(select(tables.oauth_grant).where(*_this_grant(digest, kind)))
        return None if row is None else to_grant(row)

    async def take_grant(self, digest: bytes, kind: str) -> Grant | None:
        rows = await self._changed(
            delete(tables.oauth_grant).where(*_this_grant(digest, kind)).returning(*tables.oauth_grant.c)
        )
        return to_grant(rows[0]) if rows else None

    async def replace_grant(self, grant: Grant) -> None:
        """NotFound when it was used up or revoked in the meantime."""
        statement = update(tables.oauth_grant).where(*_this_grant(grant.digest, grant.kind)).values(from_grant(grant))
        if not await self._change(statement):
            raise NotFound(thing=f"{grant.kind} grant", name="used up or revoked")

    async def device_by_user_code(self, user_code: str) -> Grant | None:
        """`data` of a device grant is JSON with the code under `user_code`."""
        newest = tables.oauth_grant.c.issued_at_s.desc()
        row = await self._row(
            select(tables.oauth_grant).where(tables.oauth_grant.c.user_code == user_code).order_by(newest).limit(1)
        )
        return None if row is None else to_grant(row)

    async def revoke_family(self, family: UUID) -> None:
        await self._change(delete(tables.oauth_grant).where(tables.oauth_grant.c.family == family))

    async def revoke_identity(self, identity: UUID) -> int:
        return await self._change(delete(tables.oauth_grant).where(tables.oauth_grant.c.identity == identity))

    async def purge_grants(self, before_s: float) -> int:
        return await self._change(delete(tables.oauth_grant).where(tables.oauth_grant.c.expires_at_s < before_s))

    async def add_project(self, id_: UUID, owner: UUID, document: str) -> None:
        await self._change(insert(tables.project).values(id=id_, owner=owner, document=document))

    async def projects(self, owners: Sequence[UUID]) -> list[tuple[UUID, str]]:
        rows = await self._rows(
            select(tables.project).where(tables.project.c.owner.in_(owners)).order_by(tables.project.c.id)
        )
        return [(row["id"], row["document"]) for row in rows]

    async def add_policy(self, policy: Policy) -> None:
        fields: dict[str, Any] = asdict(policy)
        fields["include"] = None if policy.include is None else json.dumps(policy.include)
        fields["exclude"] = json.dumps(policy.exclude)
        await self._change(insert(tables.policy).values(fields))

    async def policy(self, id_: UUID) -> Policy | None:
        row = await self._row(select(tables.policy).where(tables.policy.c.id == id_))
        return None if row is None else to_policy(row)


def _link_set(id_: UUID) -> Any:
    return select(tables.identity.c.link_set).where(tables.identity.c.id == id_)


def _this_grant(digest: bytes, kind: str) -> tuple[Any, Any]:
    return tables.oauth_grant.c.digest == digest, tables.oauth_grant.c.kind == kind
