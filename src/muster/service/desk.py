"""The desk: who asks, and what they may see, use and run. Absence and denial look the same from outside."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from muster.errors import (
    EndpointNotFound,
    FunctionNotAllowed,
    FunctionNotFound,
    Invalid,
    NotPermitted,
    PolicyFailed,
)
from muster.model.endpoint import Endpoint, EndpointKind
from muster.model.function import Function
from muster.model.identity import Principal
from muster.model.policy import Policy
from muster.store.contract import ComputeStore, Store
from muster.wire.rest import COMPUTE_SERVER

Authenticate = Callable[[str | None, str], Awaitable[Principal]]

_REMEMBERED = 10_000
_FRESH_S = 2.0  # another process of the service may have changed the row


class Registry:
    """Endpoints, remembered for a moment: a busy submitter names the same one again and again."""

    def __init__(self, store: ComputeStore) -> None:
        self._store = store
        self._known: OrderedDict[UUID, tuple[float, Endpoint]] = OrderedDict()

    async def find(self, id_: UUID) -> Endpoint | None:
        known = self._known.get(id_)
        if known is not None and time.monotonic() - known[0] < _FRESH_S:
            return known[1]
        endpoint = await self._store.endpoint(id_)
        self._known.pop(id_, None)
        if endpoint is not None:
            self._known[id_] = (time.monotonic(), endpoint)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return endpoint

    def forget(self, id_: UUID) -> None:
        self._known.pop(id_, None)


class Desk:
    """Decides; the routes only translate."""

    def __init__(self, store: Store, registry: Registry, authenticate: Authenticate) -> None:
        self._store = store
        self._registry = registry
        self._authenticate = authenticate

    async def identify(self, authorization: str | None) -> Principal:
        return await self._authenticate(authorization, COMPUTE_SERVER)

    async def endpoint_to_see(self, caller: Principal, id_: UUID) -> Endpoint:
        """A manager is known to whoever knows its id; anything else to its own people only."""
        endpoint = await self._registry.find(id_)
        if endpoint is None or not (_open_to_all(endpoint) or administers(caller, endpoint)):
            raise EndpointNotFound(endpoint=id_)
        return endpoint

    async def endpoint_to_administer(self, caller: Principal, id_: UUID) -> Endpoint:
        endpoint = await self.endpoint_to_see(caller, id_)
        if not administers(caller, endpoint):
            raise NotPermitted(why=f"endpoint {id_} is not yours")
        return endpoint

    async def endpoint_to_use(self, caller: Principal, id_: UUID) -> Endpoint:
        """The one place that says whether this caller may send tasks there."""
        endpoint = await self.endpoint_to_see(caller, id_)
        if endpoint.kind is EndpointKind.MANAGER and not endpoint.multi_user and not owns(caller, endpoint):
            raise NotPermitted(why=f"endpoint {id_} runs without privileges and serves only its owner")
        if endpoint.policy is not None:
            self._enforce(await self._store.policy(endpoint.policy), endpoint, caller)
        return endpoint

    def _enforce(self, policy: Policy | None, endpoint: Endpoint, caller: Principal) -> None:
        if policy is None:  # closed, not open: somebody meant to restrict this endpoint
            raise PolicyFailed(f"policy {endpoint.policy} is gone", why="the policy no longer exists")
        why = policy.refusal(caller, time.time())
        if why is None:
            return
        raise PolicyFailed(why=why, authorization_parameters=demands(policy, why))

    def check_allowed(self, endpoint: Endpoint, functions: list[UUID]) -> None:
        if endpoint.allowed_functions is None:
            return
        allowed = frozenset(endpoint.allowed_functions)  # both lists may have ten thousand
        for function in functions:
            if function not in allowed:
                raise FunctionNotAllowed(function=function, endpoint=endpoint.id)

    def check_runnable(self, caller: Principal, endpoint: Endpoint, function: Function) -> None:
        """Public, the caller's own, or one that the endpoint's administrators put on their list."""
        if function.public or caller.is_any_of(frozenset((function.owner,))):
            return
        if endpoint.allowed_functions is not None and function.id in endpoint.allowed_functions:
            return
        raise FunctionNotFound(function=function.id)

    async def policy_to_attach(self, id_: UUID | None) -> None:
        """A typing error must not leave an endpoint that nobody can use."""
        if id_ is not None and await self._store.policy(id_) is None:
            raise Invalid(why=f"authentication_policy: there is no policy {id_}")


def demands(policy: Policy, why: str) -> dict[str, Any]:
    """What the client should ask its person for, before it tries again."""
    asked: dict[str, Any] = {"session_message": why, "session_required_policies": [str(policy.id)], "prompt": "login"}
    plain = [domain for domain in policy.include or () if "*" not in domain and "?" not in domain]
    if plain:
        asked["session_required_single_domain"] = plain
    return asked


def owns(caller: Principal, endpoint: Endpoint) -> bool:
    return caller.is_any_of(frozenset((endpoint.owner,)))


def administers(caller: Principal, endpoint: Endpoint) -> bool:
    return endpoint.administered_by(frozenset(identity.id for identity in caller.identities))


def _open_to_all(endpoint: Endpoint) -> bool:
    return endpoint.kind is EndpointKind.MANAGER
