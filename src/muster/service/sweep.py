"""The sweep: what nobody needs any more goes, and what nobody touched for too long ends."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from muster.errors import Outage, TaskExpired
from muster.service.endings import Endings
from muster.service.groups import Groups
from muster.service.outbox import Outbox
from muster.service.settings import Settings
from muster.store.contract import Store
from muster.transport.contract import Transport
from muster.wire import topology

log = logging.getLogger(__name__)

_GRANT_GRACE_S = 86_400.0


class Sweep:
    """Runs now and then; each round does a bounded amount."""

    def __init__(
        self, store: Store, transport: Transport, groups: Groups, outbox: Outbox, endings: Endings, settings: Settings
    ) -> None:
        self._store = store
        self._transport = transport
        self._groups = groups
        self._outbox = outbox
        self._endings = endings
        self._settings = settings
        self._unread_since: dict[UUID, float] = {}

    async def round(self) -> None:
        now = time.time()
        await self._expire(now)
        await self._store.purge_results(now - self._settings.result_ttl_s)
        await self._store.purge_accounts(now - self._settings.account_purge_s)
        await self._store.purge_grants(now - _GRANT_GRACE_S)
        await self._unread_queues()

    async def _expire(self, now: float) -> None:
        ids = await self._store.unfinished_before(now - self._settings.task_ttl_s)
        if ids:
            tasks = await self._store.tasks(ids)
            await self._endings.end(list(tasks.values()), TaskExpired(age_s=int(self._settings.task_ttl_s)))
            for task in tasks.values():
                self._outbox.drop(task.endpoint, [task.id])

    async def _unread_queues(self) -> None:
        """Results leave a queue that nobody has read for long; they stay in the store."""
        now = time.monotonic()
        for id_, owner in list(self._groups.declared.items()):
            try:
                state = await self._transport.state(topology.group_queue(owner, id_))
            except Outage:
                return
            if state is not None and state.consumers > 0:
                self._unread_since.pop(id_, None)
            elif now - self._unread_since.setdefault(id_, now) > self._settings.unfetched_s:
                del self._unread_since[id_]
                await self._groups.retire(id_)
                log.info("nobody reads the queue of group %s; its results stay in the store", id_)
