"""Endpoints: registration, what they show of themselves, locking, deletion."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from muster.errors import Conflict, EndpointOffline, Invalid, Locked, Outage
from muster.model.account import AccountKind
from muster.model.endpoint import Endpoint, EndpointKind, UserEndpointKey
from muster.model.identity import Principal
from muster.service import queues
from muster.service.credentials import Credentials
from muster.service.desk import Desk, Registry, administers
from muster.service.endings import Endings
from muster.service.launches import Launches
from muster.service.outbox import Outbox
from muster.service.presence import Presence
from muster.service.reading import depth, uuid_of
from muster.service.settings import Settings
from muster.store.contract import Store
from muster.transport.contract import Transport
from muster.wire import topology
from muster.wire.bundle import VERSION
from muster.wire.command import QueueInfo
from muster.wire.rest import Registered, Registration

_SEAL_KEY_BYTES = 32
_MAX_NAME = 128
_MAX_FUNCTIONS = 10_000


class Endpoints:
    """Everything about a registered endpoint but its tasks."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        desk: Desk,
        registry: Registry,
        credentials: Credentials,
        presence: Presence,
        launches: Launches,
        outbox: Outbox,
        endings: Endings,
        settings: Settings,
    ) -> None:
        self._store = store
        self._transport = transport
        self._desk = desk
        self._registry = registry
        self._credentials = credentials
        self._presence = presence
        self._launches = launches
        self._outbox = outbox
        self._endings = endings
        self._settings = settings

    async def register(
        self, caller: Principal, id_: UUID | None, asked: Registration, address: str | None
    ) -> Registered:
        """New, or again: the id stays the registering identity's. Earlier credentials stop working."""
        if id_ is not None and UserEndpointKey.claims(id_):
            raise Conflict(why=f"{id_}: ids of version 5 are kept for user endpoints")
        before = await self._store.endpoint(id_) if id_ is not None else None
        if before is not None and not caller.is_any_of(frozenset((before.owner,))):
            raise Conflict(why=f"endpoint {id_} belongs to someone else")
        if before is not None and before.locked_until_s > time.time():
            raise Locked(endpoint=id_, until=_moment(before.locked_until_s))
        endpoint = self._described(caller, id_ or uuid4(), asked, address, before)
        await self._desk.policy_to_attach(endpoint.policy)
        await self._store.put_endpoint(endpoint)
        self._registry.forget(endpoint.id)
        new_key = endpoint.seal_key if asked.muster is not None and asked.muster.new_seal_key else None
        return await self._welcome(endpoint, new_key)

    async def _welcome(self, endpoint: Endpoint, new_key: bytes | None) -> Registered:
        manager = endpoint.kind is EndpointKind.MANAGER
        await self._transport.declare(queues.heartbeats())
        await self._transport.declare(queues.commands(endpoint.id) if manager else queues.tasks(endpoint.id))
        kind = AccountKind.MANAGER if manager else AccountKind.USER_ENDPOINT
        username, url = await self._credentials.issue(kind, endpoint.id, lasting=True)
        await self._credentials.revoke(endpoint.id, except_username=username)
        allowed = endpoint.allowed_functions
        answer = Registered(
            endpoint_id=str(endpoint.id),
            heartbeat_queue_info=topology.publish_info(url, topology.HEARTBEATS, topology.heartbeats_key(endpoint.id)),
            allowed_functions=None if allowed is None else [str(function) for function in allowed],
            seal_key=new_key,
            bundles=VERSION if endpoint.bundles else 0,
            warnings=[],
        )
        if manager:
            answer.command_queue_info = _commands_info(url, endpoint.id)
        else:
            answer.task_queue_info = topology.consume_info(url, topology.TASKS, topology.tasks_queue(endpoint.id))
            answer.result_queue_info = topology.publish_info(url, topology.RESULTS, topology.results_key(endpoint.id))
        return answer

    def _described(
        self, caller: Principal, id_: UUID, asked: Registration, address: str | None, before: Endpoint | None
    ) -> Endpoint:
        ours = asked.muster
        kind = _kind(asked)
        if before is not None and before.kind is not kind:
            raise Conflict(why=f"endpoint {id_} is registered as a {before.kind}; it cannot become a {kind}")
        seal_key = None
        if ours is not None and kind is EndpointKind.MANAGER:
            seal_key = (
                secrets.token_bytes(_SEAL_KEY_BYTES) if ours.new_seal_key else before.seal_key if before else None
            )
        return Endpoint(
            id=id_,
            owner=before.owner if before is not None else caller.id,
            name=_name(asked.endpoint_name, "endpoint_name"),
            kind=kind,
            display_name=_name(asked.display_name, "display_name") if asked.display_name else None,
            public=asked.public,
            multi_user=asked.multi_user,
            allowed_functions=_uuids(asked.allowed_functions, "allowed_functions"),
            policy=uuid_of(asked.authentication_policy, "authentication_policy")
            if asked.authentication_policy
            else None,
            admins=_uuids(asked.admins, "admins") or (),
            metadata=self._metadata(asked, address),
            seal_key=seal_key,
            bundles=ours is not None and ours.bundles > 0,
            locked_until_s=0.0,
            created_at_s=before.created_at_s if before is not None else time.time(),
        )

    def _metadata(self, asked: Registration, address: str | None) -> str:
        if depth(asked.metadata, self._settings.max_depth + 1) > self._settings.max_depth:
            raise Invalid(why=f"metadata: nested deeper than {self._settings.max_depth} levels")
        facts = {**asked.metadata, "ip_address": address, "subscription_uuid": asked.subscription_uuid}
        facts["high_assurance"] = asked.high_assurance
        if asked.muster is not None:
            facts["muster_version"] = asked.muster.version[:60]
        text = json.dumps(facts)
        if "\\u0000" in text:
            raise Invalid(why="metadata: has a NUL character")
        return text

    async def show(self, caller: Principal, id_: UUID) -> dict[str, Any]:
        """Its people see all of it; whoever may use it sees what using it takes."""
        endpoint = await self._desk.endpoint_to_see(caller, id_)
        facts = json.loads(endpoint.metadata)
        shown: dict[str, Any] = {
            "uuid": str(endpoint.id),
            "name": endpoint.name,
            "display_name": endpoint.display_name,
            "multi_user": endpoint.multi_user,
            "public": endpoint.public,
            "kind": str(endpoint.kind),
        }
        for name in ("user_config_template", "user_config_schema", "description", "endpoint_version", "sdk_version"):
            shown[name] = facts.get(name)
        for name in ("endpoint_config", "hostname", "local_user", "ip_address"):
            shown[name] = facts.get(name) if administers(caller, endpoint) else None
        shown["subscription_uuid"] = facts.get("subscription_uuid")
        return shown

    async def listed(self, caller: Principal, role: str) -> list[dict[str, Any]]:
        if role not in ("owner", "any"):
            raise Invalid(why="role: either owner or any")
        endpoints = await self._store.endpoints([identity.id for identity in caller.identities])
        if role == "any":
            known = {endpoint.id for endpoint in endpoints}
            endpoints += [e for e in await self._store.all_endpoints() if e.public and e.id not in known]
        return [
            {"uuid": str(e.id), "name": e.name, "display_name": e.display_name, "owner": str(e.owner)}
            for e in endpoints
        ]

    async def status(self, caller: Principal, id_: UUID) -> dict[str, Any]:
        endpoint = await self._desk.endpoint_to_see(caller, id_)
        saved = await self._store.report(id_)
        details = json.loads(saved[0]) if saved is not None and administers(caller, endpoint) else {}
        return {"status": "online" if await self._online(endpoint) else "offline", "details": details}

    async def _online(self, endpoint: Endpoint) -> bool:
        """Somebody reads its queue, which ends with the process; and its last words were no goodbye."""
        saved = await self._store.report(endpoint.id)
        if saved is not None:
            last = json.loads(saved[0])
            if last.get("heartbeat_period") == 0 or last.get("active") is False:
                return False
        manager = endpoint.kind is EndpointKind.MANAGER
        queue = topology.commands_queue(endpoint.id) if manager else topology.tasks_queue(endpoint.id)
        try:
            state = await self._transport.state(queue)
        except Outage:
            return self._presence.fresh(endpoint.id)
        return state is not None and state.consumers > 0

    async def allowed_functions(self, caller: Principal, id_: UUID) -> dict[str, Any]:
        endpoint = await self._desk.endpoint_to_see(caller, id_)
        allowed = endpoint.allowed_functions
        return {
            "endpoint_id": str(id_),
            "restricted": allowed is not None,
            "functions": [str(function) for function in allowed or ()],
        }

    async def lock(self, caller: Principal, id_: UUID) -> dict[str, Any]:
        """No registration for a while, and what is connected goes; not before the agent's own `stop` is through."""
        endpoint = await self._desk.endpoint_to_administer(caller, id_)
        until_s = time.time() + self._settings.lock_s
        await self._store.lock_endpoint(id_, until_s)
        self._registry.forget(id_)
        for subject in await self._subjects(endpoint):
            self._credentials.revoke_soon(subject)
        return {"endpoint_id": str(id_), "lock_expiration_timestamp": _moment(until_s)}

    async def delete(self, caller: Principal, id_: UUID) -> None:
        """Gone, with its queues and credentials; its tasks end and say why."""
        endpoint = await self._desk.endpoint_to_administer(caller, id_)
        subjects = await self._subjects(endpoint)
        await self._store.delete_endpoint(id_)
        self._registry.forget(id_)
        for subject in subjects:
            await self._credentials.revoke(subject)
            self._presence.gone(subject)
            self._outbox.hold(subject)
            await self._transport.delete(topology.tasks_queue(subject))
            await self._launches.refused(subject, EndpointOffline(why="it was deleted"))
        await self._transport.delete(topology.commands_queue(id_))

    async def _subjects(self, endpoint: Endpoint) -> list[UUID]:
        """The endpoint, and the user endpoints it started."""
        if endpoint.kind is EndpointKind.SINGLE:
            return [endpoint.id]
        return [endpoint.id, *(found.id for found in await self._store.user_endpoints(endpoint.id))]


def _kind(asked: Registration) -> EndpointKind:
    if asked.muster is None or asked.muster.kind == EndpointKind.MANAGER:
        return EndpointKind.MANAGER
    if asked.muster.kind == EndpointKind.SINGLE:
        if asked.multi_user:
            raise Invalid(why="multi_user: an endpoint that runs tasks itself serves one user")
        return EndpointKind.SINGLE
    raise Invalid(why=f"muster.kind: {asked.muster.kind[:40]!r} is neither manager nor single")


def _commands_info(url: str, manager: UUID) -> QueueInfo:
    return topology.consume_info(url, topology.COMMANDS, topology.commands_queue(manager))


def _name(text: str, field: str) -> str:
    if not 0 < len(text) <= _MAX_NAME or not text.isprintable():
        raise Invalid(why=f"{field}: between 1 and {_MAX_NAME} printable characters")
    return text


def _uuids(texts: list[str] | None, field: str) -> tuple[UUID, ...] | None:
    if texts is None:
        return None
    if len(texts) > _MAX_FUNCTIONS:
        raise Invalid(why=f"{field}: more than {_MAX_FUNCTIONS}")
    return tuple(uuid_of(text, field) for text in texts)


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()
