"""The watch: notices endpoints that went without a word, and tasks that an endpoint does not know of."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from muster.errors import EndpointOffline, Outage, UserEndpointLost
from muster.model.endpoint import Endpoint, UserEndpoint
from muster.model.task import Task
from muster.service.desk import Registry
from muster.service.endings import Endings
from muster.service.launches import Launches
from muster.service.outbox import Outbox
from muster.service.presence import Presence
from muster.service.settings import Settings
from muster.store.contract import Store
from muster.transport.contract import QueueState, Transport
from muster.wire import topology

log = logging.getLogger(__name__)


class Watch:
    """Looks at every endpoint that owes somebody a task."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        registry: Registry,
        presence: Presence,
        launches: Launches,
        outbox: Outbox,
        endings: Endings,
        settings: Settings,
    ) -> None:
        self._store = store
        self._transport = transport
        self._registry = registry
        self._presence = presence
        self._launches = launches
        self._outbox = outbox
        self._endings = endings
        self._settings = settings
        self._began_s = time.time()
        self._away_since: dict[UUID, float] = {}
        self._sent_again: set[UUID] = set()

    async def look(self) -> None:
        """One round; an unreachable broker says nothing about anybody."""
        owing = await self._store.endpoints_with_unfinished()
        for gone in self._away_since.keys() - set(owing):
            del self._away_since[gone]
        for id_ in owing:
            try:
                await self._look_at(id_, await self._transport.state(topology.tasks_queue(id_)))
            except Outage:
                return

    async def _look_at(self, id_: UUID, queue: QueueState | None) -> None:
        if self._launches.underway(id_) is not None:
            return
        endpoint = await self._registry.find(id_)
        if queue is not None and queue.consumers > 0:
            self._away_since.pop(id_, None)
            await self._connected(id_, endpoint, queue)
        elif endpoint is not None:
            await self._single_away(endpoint)
        elif (user_endpoint := await self._store.user_endpoint(id_)) is not None:
            await self._lost(user_endpoint)
        else:
            await self._endings.end_all(id_, EndpointOffline(why="it was deleted"))

    async def _connected(self, id_: UUID, endpoint: Endpoint | None, queue: QueueState) -> None:
        if not self._outbox.is_open(id_):
            user_endpoint = None if endpoint else await self._store.user_endpoint(id_)
            reader = endpoint or user_endpoint
            if reader is not None:
                self._outbox.open(id_, bundles=reader.bundles)
        idle_since_s = self._presence.idle_since_s(id_)
        if idle_since_s is not None and queue.messages == 0 and not self._outbox.waiting(id_):
            await self._reconcile(id_, idle_since_s)

    async def _reconcile(self, id_: UUID, idle_since_s: float) -> None:
        """It has been idle for a while, nothing is on its way, and yet tasks are open: somebody lost them."""
        stuck = [task for task in await self._store.unfinished(id_) if task.created_at_s < idle_since_s]
        again = [task for task in stuck if self._may_be_unsent(task)]
        if again:
            # from before this service started: perhaps committed, but not sent when it went down
            log.warning("%d task(s) that %s does not know of are sent again", len(again), id_)
            self._sent_again.update(task.id for task in again)
            self._outbox.put_ids(id_, [task.id for task in again])
            self._presence.gone(id_)  # judged again only after two more reports
        elif stuck:
            log.warning("%d task(s) were lost by %s", len(stuck), id_)
            await self._endings.end(stuck, UserEndpointLost(why="it no longer knows the task"))

    def _may_be_unsent(self, task: Task) -> bool:
        return task.created_at_s < self._began_s and task.id not in self._sent_again

    async def _single_away(self, endpoint: Endpoint) -> None:
        """A human may start it again; not for ever."""
        self._outbox.hold(endpoint.id)
        grace_s = self._settings.single_offline_grace_s
        if self._away(endpoint.id) >= grace_s:
            ended = await self._endings.end_all(
                endpoint.id, EndpointOffline(why=f"it was not connected for {grace_s:.0f} seconds")
            )
            self._outbox.drop(endpoint.id, ended)
            await self._transport.delete(topology.tasks_queue(endpoint.id))

    def _away(self, id_: UUID) -> float:
        now = time.monotonic()
        return now - self._away_since.setdefault(id_, now)

    async def _lost(self, user_endpoint: UserEndpoint) -> None:
        """Nobody reads the queue: its process is gone, whatever its last heartbeat said."""
        if self._away(user_endpoint.id) < self._settings.repeat_s and self._outbox.is_open(user_endpoint.id):
            return  # a connection that dropped comes back by itself
        log.warning("user endpoint %s is gone with tasks unfinished", user_endpoint.id)
        del self._away_since[user_endpoint.id]
        self._presence.gone(user_endpoint.id)
        await self._launches.exited(user_endpoint.id, quick=False, why="its connection ended")
