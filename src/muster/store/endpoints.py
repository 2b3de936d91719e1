"""Functions, endpoints and their reports, user endpoints, broker accounts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, insert, or_, select, update

from muster.errors import Conflict, NotPermitted
from muster.model.account import BrokerAccount
from muster.model.endpoint import Endpoint, UserEndpoint, UserEndpointKey
from muster.model.function import Function
from muster.store import tables
from muster.store.queries import Queries
from muster.store.rows import Fields, from_endpoint, to_account, to_endpoint, to_function, to_user_endpoint


class EndpointQueries(Queries):
    """Implements the half of `muster.store.contract.ComputeStore` that is not about tasks."""

    async def add_function(self, function: Function) -> None:
        fields = asdict(function)
        fields["grp"] = fields.pop("group")
        fields["created_at_s"] = function.created_at_s or time.time()
        await self._change(insert(tables.function).values(fields))

    async def function(self, id_: UUID) -> Function | None:
        row = await self._row(select(tables.function).where(tables.function.c.id == id_))
        return None if row is None else to_function(row)

    async def delete_function(self, id_: UUID) -> None:
        await self._change(delete(tables.function).where(tables.function.c.id == id_))

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        """A replaced endpoint keeps its age, and its lock: `lock_endpoint` alone opens it."""
        fields = from_endpoint(endpoint)
        fields["created_at_s"] = endpoint.created_at_s or time.time()
        insert_ = self._database.insert(tables.endpoint).values(fields)
        kept = {"id", "owner", "created_at_s", "locked_until_s"}
        changes = {name: insert_.excluded[name] for name in fields if name not in kept} | {"deleted_at_s": None}
        mine = tables.endpoint.c.owner == insert_.excluded.owner
        claim = insert_.on_conflict_do_update(index_elements=["id"], set_=changes, where=mine)

        def work(connection: Connection) -> None:
            if not connection.execute(claim.returning(tables.endpoint.c.id)).all():
                raise Conflict(f"{endpoint.id}", why=f"The endpoint id {endpoint.id} belongs to someone else.")
            admins = tables.endpoint_admin
            connection.execute(delete(admins).where(admins.c.endpoint == endpoint.id))
            rows = [
                {"endpoint": endpoint.id, "identity": id_, "place": place} for place, id_ in enumerate(endpoint.admins)
            ]
            if rows:
                connection.execute(insert(admins), rows)

        await self._database.write(work)

    async def endpoint(self, id_: UUID) -> Endpoint | None:
        found = await self._endpoints(tables.endpoint.c.id == id_)
        return found[0] if found else None

    async def endpoints(self, owners: Sequence[UUID]) -> list[Endpoint]:
        admins = tables.endpoint_admin
        administered = select(admins.c.endpoint).where(admins.c.identity.in_(owners))
        return await self._endpoints(or_(tables.endpoint.c.owner.in_(owners), tables.endpoint.c.id.in_(administered)))

    async def all_endpoints(self) -> list[Endpoint]:
        return await self._endpoints()

    async def _endpoints(self, *which: Any) -> list[Endpoint]:
        endpoint, admins = tables.endpoint.c, tables.endpoint_admin.c
        there = select(tables.endpoint).where(endpoint.deleted_at_s.is_(None), *which)
        there = there.order_by(endpoint.created_at_s, endpoint.id)
        of_them = select(tables.endpoint_admin).join(tables.endpoint).where(endpoint.deleted_at_s.is_(None), *which)

        def work(connection: Connection) -> list[Endpoint]:
            found = list(connection.execute(there).mappings())
            names = _by_endpoint(connection.execute(of_them.order_by(admins.place)).mappings()) if found else {}
            return [to_endpoint(row, names.get(row["id"], ())) for row in found]

        return await self._database.read(work)

    async def delete_endpoint(self, id_: UUID) -> None:
        """Its id stays its owner's: nobody else can register under it."""
        await self._change(update(tables.endpoint).where(tables.endpoint.c.id == id_).values(deleted_at_s=time.time()))

    async def lock_endpoint(self, id_: UUID, until_s: float) -> None:
        await self._change(update(tables.endpoint).where(tables.endpoint.c.id == id_).values(locked_until_s=until_s))

    async def save_report(self, id_: UUID, state: str, at_s: float) -> None:
        """A report that arrives late does not replace a younger one."""
        insert_ = self._database.insert(tables.report).values(id=id_, state=state, at_s=at_s)
        changes = {"state": insert_.excluded.state, "at_s": insert_.excluded.at_s}
        younger = insert_.excluded.at_s >= tables.report.c.at_s
        await self._change(insert_.on_conflict_do_update(index_elements=["id"], set_=changes, where=younger))

    async def report(self, id_: UUID) -> tuple[str, float] | None:
        row = await self._row(select(tables.report).where(tables.report.c.id == id_))
        return None if row is None else (row["state"], row["at_s"])

    async def claim_user_endpoint(self, key: UserEndpointKey, values: str, runtime: str) -> UserEndpoint:
        known = await self.user_endpoint(key.id)
        if known is not None and known.key == key and known.runtime == runtime:
            return known  # nothing to change, and an owner never changes: spare the commit
        new = {"id": key.id, **asdict(key), "values": values, "runtime": runtime, "bundles": False}
        insert_ = self._database.insert(tables.user_endpoint).values(new | {"created_at_s": time.time()})
        there, given = tables.user_endpoint.c, insert_.excluded
        mine = (there.endpoint == given.endpoint) & (there.identity == given.identity) & (there.config == given.config)
        claim = insert_.on_conflict_do_update(index_elements=["id"], set_={"runtime": given.runtime}, where=mine)
        rows = await self._changed(claim.returning(*there))
        if not rows:
            raise NotPermitted(f"{key.id} is not {key.identity}'s", why=f"{key.id} belongs to another identity.")
        return to_user_endpoint(rows[0])

    async def user_endpoint(self, id_: UUID) -> UserEndpoint | None:
        row = await self._row(select(tables.user_endpoint).where(tables.user_endpoint.c.id == id_))
        return None if row is None else to_user_endpoint(row)

    async def user_endpoints(self, manager: UUID) -> list[UserEndpoint]:
        there = tables.user_endpoint.c
        statement = select(tables.user_endpoint).where(there.endpoint == manager)
        return [to_user_endpoint(row) for row in await self._rows(statement.order_by(there.created_at_s, there.id))]

    async def set_bundles(self, user_endpoint: UUID, bundles: bool) -> None:
        there = tables.user_endpoint.c
        await self._change(update(tables.user_endpoint).where(there.id == user_endpoint).values(bundles=bundles))

    async def put_account(self, account: BrokerAccount) -> None:
        """Conflict when the username is another party's: an account changes its password, never its holder."""
        insert_ = self._database.insert(tables.broker_account).values(asdict(account) | {"kind": account.kind.value})
        given, there = insert_.excluded, tables.broker_account.c
        changes = {"password_sha256": given.password_sha256, "expires_at_s": given.expires_at_s}
        same = (there.subject == given.subject) & (there.kind == given.kind)
        put = insert_.on_conflict_do_update(index_elements=["username"], set_=changes, where=same)
        if not await self._changed(put.returning(there.username)):
            raise Conflict(account.username, why=f"The broker account {account.username} belongs to someone else.")

    async def account(self, username: str) -> BrokerAccount | None:
        row = await self._row(select(tables.broker_account).where(tables.broker_account.c.username == username))
        return None if row is None else to_account(row)

    async def revoke_accounts(self, subject: UUID, except_username: str | None = None) -> list[str]:
        there = tables.broker_account.c
        statement = delete(tables.broker_account).where(there.subject == subject)
        if except_username is not None:
            statement = statement.where(there.username != except_username)
        return [row["username"] for row in await self._changed(statement.returning(there.username))]

    async def purge_accounts(self, before_s: float) -> list[str]:
        there = tables.broker_account.c
        statement = delete(tables.broker_account).where(there.expires_at_s < before_s).returning(there.username)
        return [row["username"] for row in await self._changed(statement)]


def _by_endpoint(rows: Iterable[Fields]) -> dict[UUID, list[UUID]]:
    admins: dict[UUID, list[UUID]] = {}
    for row in rows:
        admins.setdefault(row["endpoint"], []).append(row["identity"])
    return admins
