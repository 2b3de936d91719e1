"""Identities, OAuth clients and grants, projects and policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Executable, delete, insert, or_, select, update

from muster.errors import Conflict, NotFound
from muster.model.identity import Identity
from muster.model.policy import Policy
from muster.store.contract import Grant, OAuthClient
from muster.store.database import Database
from muster.store.rows import Fields, fold, from_grant, to_client, to_grant, to_identity, to_policy
from muster.store.tables import identity, oauth_client, oauth_grant, policy, project


class Queries:
    """One statement, read or written; what takes several is a function of its own."""

    _database: Database

    async def _rows(self, statement: Executable) -> list[Fields]:
        return await self._database.read(lambda connection: list(connection.execute(statement).mappings()))

    async def _row(self, statement: Executable) -> Fields | None:
        return await self._database.read(lambda connection: connection.execute(statement).mappings().first())

    async def _change(self, statement: Executable) -> int:
        """How many rows it changed."""
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def _changed(self, statement: Executable) -> list[Fields]:
        """For statements with RETURNING."""
        return await self._database.write(lambda connection: list(connection.execute(statement).mappings()))


class IdentityQueries(Queries):
    """Implements `muster.store.contract.IdentityStore`."""

    async def add_identity(self, identity_: Identity, password_hash: str | None = None) -> Identity:
        folded = fold(identity_.username)
        fields = asdict(identity_) | {"username_folded": folded, "password_hash": password_hash, "link_set": uuid4()}
        statement = self._database.insert(identity).values(fields).on_conflict_do_nothing().returning(identity.c.id)
        if not await self._changed(statement):
            raise Conflict(identity_.username, why=f"The username {identity_.username} is taken.")
        return identity_

    async def set_password(self, identity_: UUID, password_hash: str) -> None:
        statement = update(identity).where(identity.c.id == identity_).values(password_hash=password_hash)
        if not await self._change(statement):
            raise NotFound(thing="identity", name=identity_)

    async def password_hash(self, username: str) -> tuple[UUID, str] | None:
        row = await self._row(select(identity).where(identity.c.username_folded == fold(username)))
        return None if row is None or row["password_hash"] is None else (row["id"], row["password_hash"])

    async def link_identities(self, one: UUID, other: UUID) -> None:
        def work(connection: Connection) -> None:
            self._database.serialise(connection, "link identities")  # or two links at once could miss a third of the set
            sets = {id_: connection.execute(_link_set(id_)).scalar() for id_ in (one, other)}
            for id_, found in sets.items():
                if found is None:
                    raise NotFound(thing="identity", name=id_)
            joined = update(identity).where(identity.c.link_set == sets[other]).values(link_set=sets[one])
            connection.execute(joined)

        await self._database.write(work)

    async def identity(self, id_: UUID) -> Identity | None:
        row = await self._row(select(identity).where(identity.c.id == id_))
        return None if row is None else to_identity(row)

    async def identities(self, ids: Sequence[UUID], usernames: Sequence[str] = ()) -> list[Identity]:
        wanted = or_(identity.c.id.in_(ids), identity.c.username_folded.in_([fold(name) for name in usernames]))
        rows = await self._rows(select(identity).where(wanted).order_by(identity.c.username_folded))
        return [to_identity(row) for row in rows]

    async def linked_to(self, id_: UUID) -> list[Identity]:
        same_set = identity.c.link_set == _link_set(id_).scalar_subquery()
        statement = select(identity).where(same_set, identity.c.id != id_).order_by(identity.c.username_folded)
        return [to_identity(row) for row in await self._rows(statement)]

    async def touch_authentication(self, id_: UUID, at_s: int) -> None:
        await self._change(update(identity).where(identity.c.id == id_).values(last_authentication_s=at_s))

    async def add_client(self, client: OAuthClient) -> None:
        fields = asdict(client) | {"redirect_uris": json.dumps(client.redirect_uris)}
        await self._change(insert(oauth_client).values(fields))

    async def client(self, id_: UUID) -> OAuthClient | None:
        row = await self._row(select(oauth_client).where(oauth_client.c.id == id_))
        return None if row is None else to_client(row)

    async def clients(self) -> list[OAuthClient]:
        rows = await self._rows(select(oauth_client).order_by(oauth_client.c.name, oauth_client.c.id))
        return [to_client(row) for row in rows]

    async def add_grant(self, *grants: Grant) -> None:
        if grants:
            await self._change(insert(oauth_grant).values([from_grant(grant) for grant in grants]))

    async def grant(self, digest: bytes, kind: str) -> Grant | None:
        row = await self._row(select(oauth_grant).where(*_this_grant(digest, kind)))
        return None if row is None else to_grant(row)

    async def take_grant(self, digest: bytes, kind: str) -> Grant | None:
        rows = await self._changed(delete(oauth_grant).where(*_this_grant(digest, kind)).returning(*oauth_grant.c))
        return to_grant(rows[0]) if rows else None

    async def replace_grant(self, grant: Grant) -> None:
        """NotFound when it was used up or revoked in the meantime."""
        statement = update(oauth_grant).where(*_this_grant(grant.digest, grant.kind)).values(from_grant(grant))
        if not await self._change(statement):
            raise NotFound(thing=f"{grant.kind} grant", name="used up or revoked")

    async def device_by_user_code(self, user_code: str) -> Grant | None:
        """`data` of a device grant is JSON with the code under `user_code`."""
        newest = oauth_grant.c.issued_at_s.desc()
        row = await self._row(select(oauth_grant).where(oauth_grant.c.user_code == user_code).order_by(newest).limit(1))
        return None if row is None else to_grant(row)

    async def revoke_family(self, family: UUID) -> None:
        await self._change(delete(oauth_grant).where(oauth_grant.c.family == family))

    async def purge_grants(self, before_s: float) -> int:
        return await self._change(delete(oauth_grant).where(oauth_grant.c.expires_at_s < before_s))

    async def add_project(self, id_: UUID, owner: UUID, document: str) -> None:
        await self._change(insert(project).values(id=id_, owner=owner, document=document))

    async def projects(self, owners: Sequence[UUID]) -> list[tuple[UUID, str]]:
        rows = await self._rows(select(project).where(project.c.owner.in_(owners)).order_by(project.c.id))
        return [(row["id"], row["document"]) for row in rows]

    async def add_policy(self, policy_: Policy) -> None:
        fields: dict[str, Any] = asdict(policy_)
        fields["include"] = None if policy_.include is None else json.dumps(policy_.include)
        fields["exclude"] = json.dumps(policy_.exclude)
        await self._change(insert(policy).values(fields))

    async def policy(self, id_: UUID) -> Policy | None:
        row = await self._row(select(policy).where(policy.c.id == id_))
        return None if row is None else to_policy(row)


def _link_set(id_: UUID) -> Any:
    return select(identity.c.link_set).where(identity.c.id == id_)


def _this_grant(digest: bytes, kind: str) -> tuple[Any, Any]:
    return oauth_grant.c.digest == digest, oauth_grant.c.kind == kind
