"""Heartbeats: what the status reports of managers and endpoints mean."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

from muster.errors import MusterError, UndecodableMessage
from muster.model.endpoint import Endpoint, EndpointKind, UserEndpoint
from muster.service.desk import Registry
from muster.service.launches import Launches, start_error
from muster.service.outbox import Outbox
from muster.service.presence import Presence
from muster.store.contract import ComputeStore
from muster.transport.contract import Delivery, Transport
from muster.wire import topology
from muster.wire.envelope import StatusReport, decode

log = logging.getLogger(__name__)

_AHEAD = 500
_LIMIT_CHARACTERS = 64 * 1024
_DEFAULT_PERIOD_S = 30.0
_KNOWN_USER_ENDPOINTS = 50_000
_MOST_EXITS = 1000
_SHOWN = 2000  # characters of somebody else's error text


class Heartbeats:
    """The one reader of the heartbeats queue. The routing key says who speaks; a body can say anything."""

    def __init__(
        self,
        store: ComputeStore,
        transport: Transport,
        registry: Registry,
        presence: Presence,
        launches: Launches,
        outbox: Outbox,
    ) -> None:
        self._store = store
        self._transport = transport
        self._registry = registry
        self._presence = presence
        self._launches = launches
        self._outbox = outbox
        self._user_endpoints: OrderedDict[UUID, UserEndpoint] = OrderedDict()

    async def run(self) -> None:
        async for deliveries in self._transport.consume(topology.HEARTBEATS, ahead=_AHEAD):
            for delivery in deliveries:
                try:
                    await self._hear(delivery)
                except Exception:  # the edge of the consumer: one bad report must not silence all others
                    log.exception("a report under %s could not be handled", delivery.routing_key[:80])
                delivery.ack()

    async def _hear(self, delivery: Delivery) -> None:
        who = topology.sender(delivery.routing_key)
        try:
            report = decode(delivery.body)
            if not isinstance(report, StatusReport):
                raise UndecodableMessage(why="not a status report")
        except MusterError as why:
            log.warning("a message under %s was dropped: %s", delivery.routing_key[:80], why)
            return
        if who is None or report.endpoint_id != str(who):
            log.warning(
                "a report of %s under the key %s was dropped", report.endpoint_id[:60], delivery.routing_key[:80]
            )
            return
        endpoint = await self._registry.find(who)
        if endpoint is not None and endpoint.kind is EndpointKind.MANAGER:
            await self._manager(endpoint, report.state)
        elif endpoint is not None:
            await self._single(endpoint, report.state)
        elif (user_endpoint := await self._user_endpoint(who)) is not None:
            await self._user(user_endpoint, report.state)
        else:
            log.warning("a report of %s, which nobody knows, was dropped", who)

    async def _manager(self, manager: Endpoint, state: dict[str, Any]) -> None:
        if "error" in state:
            # After a failed start an official manager says this under its own id, too: it is not down.
            log.warning("manager %s reports: %s", manager.id, _shown(state["error"]))
            return
        self._presence.saw(manager.id, period_of(state))
        await self._save(manager.id, state)
        for fact in _exits(state):
            await self._exit(manager, fact)

    async def _exit(self, manager: Endpoint, fact: dict[str, Any]) -> None:
        """A manager speaks of its own user endpoints only."""
        try:
            id_ = UUID(str(fact.get("endpoint_id")))
        except ValueError:
            return
        user_endpoint = await self._user_endpoint(id_)
        if user_endpoint is None or user_endpoint.key.endpoint != manager.id:
            log.warning("manager %s spoke of %s, which is not its own", manager.id, id_)
            return
        code, why = str(fact.get("code", "EXITED")), _shown(fact.get("public") or "")
        log.info("user endpoint %s: %s %s", id_, code, why)
        self._presence.gone(id_)
        await self._inactive(id_)
        if code == "EXITED":
            await self._launches.exited(id_, quick=fact.get("quick") is True, why=why or "it said nothing")
        else:
            await self._launches.refused(id_, start_error(code, why))

    async def _single(self, endpoint: Endpoint, state: dict[str, Any]) -> None:
        await self._save(endpoint.id, state)
        if state.get("active") is False or "error" in state:
            self._presence.gone(endpoint.id)
            self._outbox.hold(endpoint.id)
            return
        self._presence.saw(endpoint.id, period_of(state), idle=is_idle(state))
        self._outbox.open(endpoint.id, bundles=bool(state.get("bundles")))

    async def _user(self, user_endpoint: UserEndpoint, state: dict[str, Any]) -> None:
        id_ = user_endpoint.id
        if "error" in state:
            await self._launches.refused(id_, start_error("START_FAILED", _shown(state["error"])))
            return
        await self._save(id_, state)
        if state.get("active") is False:
            self._presence.gone(id_)
            await self._launches.exited(id_, quick=False, why="it stopped")
            return
        self._presence.saw(id_, period_of(state), idle=is_idle(state))
        bundles = bool(state.get("bundles"))
        if bundles != user_endpoint.bundles:
            await self._store.set_bundles(id_, bundles)
            self._user_endpoints.pop(id_, None)
        self._launches.checked_in(id_, bundles=bundles)

    async def _user_endpoint(self, id_: UUID) -> UserEndpoint | None:
        known = self._user_endpoints.get(id_)
        if known is None:
            known = await self._store.user_endpoint(id_)
            if known is not None:
                self._user_endpoints[id_] = known
                if len(self._user_endpoints) > _KNOWN_USER_ENDPOINTS:
                    self._user_endpoints.popitem(last=False)
        return known

    async def _inactive(self, id_: UUID) -> None:
        saved = await self._store.report(id_)
        state = json.loads(saved[0]) if saved else {}
        await self._save(id_, {**state, "active": False})

    async def _save(self, id_: UUID, state: dict[str, Any]) -> None:
        shown = {name: value for name, value in state.items() if name != "exits"}
        text = json.dumps(shown)
        if len(text) > _LIMIT_CHARACTERS:
            text = json.dumps({name: shown.get(name) for name in ("heartbeat_period", "active", "bundles")})
        await self._store.save_report(id_, text.replace("\\u0000", ""), time.time())


def period_of(state: dict[str, Any]) -> float:
    period = state.get("heartbeat_period", _DEFAULT_PERIOD_S)
    usable = isinstance(period, int | float) and math.isfinite(period) and 0 <= period <= 86_400
    return float(period) if usable else _DEFAULT_PERIOD_S


def is_idle(state: dict[str, Any]) -> bool:
    """It says that it neither runs nor holds a task."""
    return "outstanding_tasks" in state and not state.get("outstanding_tasks") and not state.get("pending_tasks")


def _exits(state: dict[str, Any]) -> list[dict[str, Any]]:
    exits = state.get("exits")
    return [fact for fact in exits[:_MOST_EXITS] if isinstance(fact, dict)] if isinstance(exits, list) else []


def _shown(text: Any) -> str:
    return str(text)[:_SHOWN].replace("\x00", "")
