"""Tasks and groups as their owner sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from muster.errors import NotFound, TaskNotFound
from muster.model.account import AccountKind
from muster.model.identity import Principal
from muster.model.task import Outcome, Task, TaskState
from muster.service.credentials import Credentials
from muster.service.groups import Groups
from muster.service.launches import Launches
from muster.service.outbox import Outbox
from muster.store.contract import Store
from muster.transport.contract import Transport
from muster.wire import topology
from muster.wire.rest import ResultQueue, TaskDocument

_PORTION_BYTES = 32 * 1024 * 1024
_FEW = 3  # results that fit whatever their sizes are


class Tasks:
    """Shows a task only to the identities that submitted it; somebody else's is not there."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        groups: Groups,
        credentials: Credentials,
        launches: Launches,
        outbox: Outbox,
    ) -> None:
        self._store = store
        self._transport = transport
        self._groups = groups
        self._credentials = credentials
        self._launches = launches
        self._outbox = outbox

    async def show(self, caller: Principal, id_: UUID) -> TaskDocument:
        found = await self.show_all(caller, [id_])
        if str(id_) not in found:
            raise TaskNotFound(task=id_)
        return found[str(id_)]

    async def show_all(self, caller: Principal, ids: Sequence[UUID]) -> dict[str, TaskDocument]:
        """The documents of those that are the caller's; others are simply absent. One answer holds a bounded amount
        of results: a task whose result is beyond it looks unfinished, and whoever asks again gets it then.
        """
        mine = frozenset(identity.id for identity in caller.identities)
        tasks = {id_: task for id_, task in (await self._store.tasks(ids)).items() if task.owner in mine}
        sizes = await self._store.result_sizes(list(tasks)) if len(tasks) > _FEW else {}
        portion = next(portions(list(tasks), sizes), [])
        outcomes = await self._store.outcomes(portion)
        return {str(id_): self._document(task, outcomes.get(id_)) for id_, task in tasks.items()}

    def _document(self, task: Task, outcome: Outcome | None) -> TaskDocument:
        if outcome is None:
            return TaskDocument(task_id=str(task.id), status=str(self._state(task)))
        return finished_document(outcome)

    def _state(self, task: Task) -> TaskState:
        if self._launches.underway(task.endpoint) is not None:
            return TaskState.WAITING_FOR_LAUNCH
        return TaskState.WAITING_FOR_ENDPOINT if self._outbox.is_open(task.endpoint) else TaskState.RECEIVED

    async def group(self, caller: Principal, id_: UUID, *, bundles: bool) -> dict[str, Any]:
        """What is in the group; its queue exists from now on, because whoever asks is about to read it."""
        group = await self._groups.find(id_)
        if group is None or not caller.is_any_of(frozenset((group.owner,))):
            raise NotFound(thing="task group", name=id_)
        await self._groups.declare(await self._groups.attach(group, bundles=bundles))
        return {
            "taskgroup_id": str(id_),
            "create_websockets_queue": True,
            "tasks": [
                {"id": str(task), "created_at": datetime.fromtimestamp(at_s, UTC).isoformat()}
                for task, at_s in await self._store.group_tasks(id_)
            ],
        }

    async def result_queue(self, caller: Principal) -> ResultQueue:
        """Credentials that read the results of this identity and nothing else."""
        _, url = await self._credentials.issue(AccountKind.READER, caller.id)
        return ResultQueue(queue_prefix=topology.group_prefix(caller.id), connection_url=url)

    async def user_endpoints(self, caller: Principal) -> list[dict[str, Any]]:
        """The caller's user endpoints: where, whether up, how many tasks wait for each."""
        mine = frozenset(identity.id for identity in caller.identities)
        shown: list[dict[str, Any]] = []
        for endpoint in await self._store.all_endpoints():
            found = [one for one in await self._store.user_endpoints(endpoint.id) if one.key.identity in mine]
            shown += [await self._user_endpoint(one.id, endpoint.id, one.values) for one in found]
        return shown

    async def _user_endpoint(self, id_: UUID, endpoint: UUID, values: str) -> dict[str, Any]:
        queue = await self._transport.state(topology.tasks_queue(id_))
        if self._launches.underway(id_) is not None:
            state = "starting"
        else:
            state = "up" if queue is not None and queue.consumers else "down"
        unfinished = await self._store.unfinished(id_, None, 1000)
        return {
            "id": str(id_),
            "endpoint": str(endpoint),
            "state": state,
            "unfinished_tasks": len(unfinished),
            "user_endpoint_config": json.loads(values),
        }


def portions(ids: Sequence[UUID], sizes: Mapping[UUID, int]) -> Iterator[list[UUID]]:
    """In order, so that the results of each fit into memory several times over; one is never empty."""
    some: list[UUID] = []
    total = 0
    for id_ in ids:
        total += sizes.get(id_, 0)
        if some and total > _PORTION_BYTES:
            yield some
            some, total = [], sizes.get(id_, 0)
        some.append(id_)
    if some:
        yield some


def finished_document(outcome: Outcome) -> TaskDocument:
    """`completion_t` is text, and there exactly when the task is done."""
    details = json.loads(outcome.details)
    transitions = {}
    if outcome.started_ns is not None:
        transitions["execution-start"] = outcome.started_ns / 1e9
    if outcome.ended_ns is not None:
        transitions["execution-end"] = outcome.ended_ns / 1e9
    error = outcome.error
    return TaskDocument(
        task_id=str(outcome.task),
        status=str(TaskState.FAILED if error else TaskState.SUCCESS),
        result=None if error else outcome.data,
        exception=outcome.data if error else None,
        completion_t=f"{outcome.completed_at_s:.2f}",
        details={**details, "task_transitions": transitions},
        error_code=error[0] if error else None,
        reason=error[1] if error else None,
    )
