"""Task groups and the queue that each one's results go to."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from uuid import UUID

from muster.errors import NotPermitted
from muster.model.task import TaskGroup
from muster.service import queues
from muster.store.contract import ComputeStore
from muster.transport.contract import Transport
from muster.wire import topology

_REMEMBERED = 50_000


class Groups:
    """Claims and declares; remembers both, because a busy submitter names the same group again and again."""

    def __init__(self, store: ComputeStore, transport: Transport) -> None:
        self._store = store
        self._transport = transport
        self._known: OrderedDict[UUID, TaskGroup] = OrderedDict()
        self.declared: dict[UUID, UUID] = {}  # group -> owner, of queues that exist

    async def claim(self, id_: UUID, owner: UUID, *, bundles: bool) -> TaskGroup:
        """The group is this identity's from now on; NotPermitted when it is somebody else's."""
        group = self._known.get(id_)
        if group is None:
            group = await self._store.claim_group(TaskGroup(id_, owner, bundles, time.time()))
        if group.owner != owner:
            raise NotPermitted(why=f"task group {id_} belongs to someone else")
        return await self.attach(group, bundles=bundles)

    async def attach(self, group: TaskGroup, *, bundles: bool) -> TaskGroup:
        """Whoever attached last decides what its queue carries."""
        if group.bundles != bundles:
            await self._store.set_group_bundles(group.id, bundles)
            group = replace(group, bundles=bundles)
        self._remember(group)
        return group

    async def find(self, id_: UUID) -> TaskGroup | None:
        group = self._known.get(id_)
        if group is None:
            group = await self._store.group(id_)
            if group is not None:
                self._remember(group)
        return group

    async def declare(self, group: TaskGroup) -> bool:
        """True when the queue was made just now."""
        if group.id in self.declared:
            return False
        created = await self._transport.declare(queues.group(group.owner, group.id))
        self.declared[group.id] = group.owner
        return created

    async def retire(self, id_: UUID) -> None:
        """The queue goes; results stay in the store, and the next submit or read of the group brings it back."""
        owner = self.declared.pop(id_, None)
        if owner is not None:
            await self._transport.delete(topology.group_queue(owner, id_))

    def _remember(self, group: TaskGroup) -> None:
        self._known[group.id] = group
        self._known.move_to_end(group.id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
