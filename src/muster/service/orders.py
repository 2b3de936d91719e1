"""Start orders: the command a manager gets, sealed for its root where the site has a key."""

from __future__ import annotations

import secrets
import time
from hashlib import sha256
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec

from muster.errors import EndpointOffline
from muster.model.account import AccountKind
from muster.model.endpoint import Endpoint, UserEndpoint
from muster.model.identity import Identity
from muster.service.credentials import Credentials
from muster.store.contract import Store
from muster.transport.contract import Outgoing, Transport
from muster.wire import topology
from muster.wire.bundle import VERSION
from muster.wire.command import START, BrokerCredentials, Payload, Sealed, StartCommand, encode_json
from muster.wire.order import LIFETIME_S, LIMIT_BYTES, Order, seal

_MOST_IDENTITIES = 50
_MOST_CHARACTERS = 256  # of one field; root maps by no longer one
_IDENTITIES_BYTES = LIMIT_BYTES - 4096  # of an order, at most: the rest of it has a bounded size


class Orders:
    """Writes and sends them. Each carries credentials of its own; earlier ones stay good while it runs."""

    def __init__(self, store: Store, transport: Transport, credentials: Credentials) -> None:
        self._store = store
        self._transport = transport
        self._credentials = credentials

    async def send(self, manager: Endpoint, user_endpoint: UserEndpoint) -> None:
        """Ask the manager to start it for the person it belongs to."""
        who = await self._store.identity(user_endpoint.key.identity)
        if who is None:
            raise EndpointOffline(why="the identity it belongs to no longer exists")
        identities = [who, *await self._store.linked_to(who.id)][:_MOST_IDENTITIES]
        _, url = await self._credentials.issue(AccountKind.USER_ENDPOINT, user_endpoint.id)
        body = command(manager, user_endpoint, identities, url)
        queue = topology.commands_queue(manager.id)
        message = Outgoing(
            topology.COMMANDS,
            queue,
            body,
            content_type="application/json",
            content_encoding="utf-8",
            headers={"debug": False},
            timestamp_s=int(time.time()),
        )
        await self._transport.publish([message])


def command(manager: Endpoint, user_endpoint: UserEndpoint, identities: list[Identity], url: str) -> bytes:
    """The body: official fields, or a sealed order when root at the site shares a key with us."""
    official: dict[str, Any] = {
        "command": START,
        "globus_username": identities[0].username,
        "globus_effective_identity": str(identities[0].id),
        "globus_identity_set": [identity_document(identity) for identity in identities],
        "args": [],
    }
    payload = payload_for(manager, user_endpoint, url)
    if manager.seal_key is not None:
        return encode_json(StartCommand(**official, sealed=sealed(manager.id, manager.seal_key, payload, identities)))
    known = ("name", "user_opts", "user_runtime", "amqp_creds")  # an official manager passes all on by name
    kwargs = payload if manager.bundles else {name: getattr(payload, name) for name in known}
    return msgspec.json.encode({**official, "kwargs": kwargs})


def payload_for(manager: Endpoint, user_endpoint: UserEndpoint, url: str) -> Payload:
    allowed = manager.allowed_functions
    return Payload(
        name=user_endpoint.key.name,
        user_opts=msgspec.json.decode(user_endpoint.values, type=dict),
        user_runtime=msgspec.json.decode(user_endpoint.runtime, type=dict),
        amqp_creds=broker_credentials(user_endpoint.id, url),
        allowed_functions=None if allowed is None else [str(function) for function in allowed],
        bundles=VERSION,
    )


def broker_credentials(endpoint: UUID, url: str) -> BrokerCredentials:
    return BrokerCredentials(
        endpoint_id=str(endpoint),
        task_queue_info=topology.consume_info(url, topology.TASKS, topology.tasks_queue(endpoint)),
        result_queue_info=topology.publish_info(url, topology.RESULTS, topology.results_key(endpoint)),
        heartbeat_queue_info=topology.publish_info(url, topology.HEARTBEATS, topology.heartbeats_key(endpoint)),
    )


def sealed(manager: UUID, key: bytes, payload: Payload, identities: list[Identity]) -> Sealed:
    """A fresh nonce each time: a monitor takes no order twice."""
    text = encode_json(payload).decode()
    order = Order(
        recipient=str(manager),
        name=payload.name,
        nonce=secrets.token_bytes(16),
        expires_s=int(time.time()) + LIFETIME_S,
        payload_sha256=sha256(text.encode()).digest(),
        identities=_within_limit([_text_fields(identity) for identity in identities]),
    ).encode()
    return Sealed(order=order, seal=seal(order, key), payload=text)


def identity_document(identity: Identity) -> dict[str, Any]:
    """As the official managers expect it: both `id` and `sub`, and every field that a mapping may name."""
    return {
        "id": str(identity.id),
        "sub": str(identity.id),
        "username": identity.username,
        "name": identity.name,
        "email": identity.email,
        "organization": identity.organization,
        "identity_provider": identity.issuer,
        "identity_provider_display_name": identity.issuer_name,
        "identity_type": "login",
        "status": identity.status,
        "last_authentication": identity.last_authentication_s,
    }


def _text_fields(identity: Identity) -> dict[str, str]:
    """A field that is too long is left out, never cut: what is left of it could be somebody else's name."""
    document = {name: str(value) for name, value in identity_document(identity).items() if value is not None}
    return {name: text for name, text in document.items() if len(text) <= _MOST_CHARACTERS}


def _within_limit(identities: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first ones, as many as an order can hold; one always fits."""
    sizes = accumulate(sum(8 + len(name) + len(text.encode()) for name, text in one.items()) for one in identities)
    return [one for one, size in zip(identities, sizes, strict=True) if size <= _IDENTITIES_BYTES]
