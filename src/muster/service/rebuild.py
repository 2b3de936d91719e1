"""Rebuild: at start, everything the store says must exist on the broker does, and what is owed is on its way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from uuid import UUID

from muster.model.endpoint import Endpoint, EndpointKind
from muster.model.task import TaskGroup
from muster.service import queues
from muster.service.credentials import Credentials
from muster.service.groups import Groups
from muster.service.notices import Ended, Notices
from muster.service.outbox import Outbox
from muster.service.settings import Settings
from muster.service.tasks import portions
from muster.store.contract import Store
from muster.transport.contract import Transport
from muster.wire import topology

log = logging.getLogger(__name__)

_PAGE = 1000


class Rebuild:
    """The store is the truth, the broker is a pipe that may have come back empty."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        groups: Groups,
        notices: Notices,
        outbox: Outbox,
        credentials: Credentials,
        settings: Settings,
    ) -> None:
        self._store = store
        self._transport = transport
        self._groups = groups
        self._notices = notices
        self._outbox = outbox
        self._credentials = credentials
        self._settings = settings

    async def run(self) -> None:
        began = time.monotonic()
        await self._transport.declare(queues.results())
        await self._transport.declare(queues.heartbeats())
        endpoints = await self._store.all_endpoints()
        for endpoint in endpoints:
            await self._endpoint(endpoint)
        waiting = await self._unfinished()
        await self._recent_groups(waiting)
        log.info("rebuilt %d endpoint(s) in %.2f s", len(endpoints), time.monotonic() - began)

    async def _endpoint(self, endpoint: Endpoint) -> None:
        if endpoint.kind is EndpointKind.SINGLE:
            await self._transport.declare(queues.tasks(endpoint.id))
        else:
            await self._transport.declare(queues.commands(endpoint.id))
            await self._user_endpoints(endpoint.id)
        if endpoint.locked_until_s > time.time():
            self._credentials.revoke_soon(endpoint.id)  # a lock answered just before we went down

    async def _user_endpoints(self, manager: UUID) -> None:
        """Those that never said goodbye may still be up, and come back to their queue."""
        for found in await self._store.user_endpoints(manager):
            report = await self._store.report(found.id)
            if report is not None and json.loads(report[0]).get("active") is True:
                await self._transport.declare(queues.tasks(found.id))

    async def _unfinished(self) -> set[UUID]:
        """Hold what was not delivered for whoever comes; the groups that wait for something."""
        groups: set[UUID] = set()
        for id_ in await self._store.endpoints_with_unfinished():
            created = await self._transport.declare(queues.tasks(id_))
            state = await self._transport.state(topology.tasks_queue(id_))
            # a queue that survived with messages or a reader has them; the watch finds what fell between
            resend = created or state is None or (state.messages == 0 and state.consumers == 0)
            after: UUID | None = None
            while page := await self._store.unfinished(id_, after, _PAGE):
                after = page[-1].id
                groups.update(task.group for task in page)
                if resend:
                    self._outbox.put_ids(id_, [task.id for task in page])
        return groups

    async def _recent_groups(self, waiting: Iterable[UUID]) -> None:
        recent = {g.id: g for g in await self._store.recent_groups(time.time() - self._settings.group_queue_s)}
        for id_ in waiting:
            if id_ not in recent and (group := await self._groups.find(id_)) is not None:
                recent[id_] = group
        for group in recent.values():
            if await self._groups.declare(group):
                await self._results_again(group)

    async def _results_again(self, group: TaskGroup) -> None:
        """The queue is new: a result that was in the old one would be missed. Duplicates do no harm."""
        found = await self._store.group_results(group.id, time.time() - self._settings.unfetched_s)
        for portion in portions([id_ for id_, _ in found], dict(found)):
            outcomes = await self._store.outcomes(portion)
            await self._notices.tell([Ended(group.id, outcomes[id_]) for id_ in portion if id_ in outcomes])
