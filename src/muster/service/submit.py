"""Submit: the tasks are in the store before the answer goes out; how they get to an endpoint comes after."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from muster.errors import Invalid, MusterError
from muster.model.endpoint import Endpoint, EndpointKind, UserEndpoint, UserEndpointKey
from muster.model.identity import Principal
from muster.model.task import Task
from muster.service.desk import Desk
from muster.service.functions import Functions
from muster.service.groups import Groups
from muster.service.ids import time_ordered_ids
from muster.service.launches import Attempt, Launches
from muster.service.outbox import Outbox
from muster.service.reading import bounded_json, uuid_of
from muster.service.settings import Settings
from muster.store.contract import Store
from muster.wire.rest import Submission, Submitted

_MAX_RUNTIME_BYTES = 16 * 1024
_MAX_RESOURCES_BYTES = 4 * 1024
_MAX_SERIALIZERS = 16
_MAX_SERIALIZER_CHARACTERS = 256
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Batch:
    """A submission that was read in full: ids are UUIDs, sizes are within bounds."""

    group: UUID
    ids: dict[UUID, list[UUID]]
    payloads: dict[UUID, list[str]]
    resources: str | None
    serializers: tuple[str, ...]


class Submit:
    """Takes batches of tasks."""

    def __init__(
        self,
        store: Store,
        desk: Desk,
        functions: Functions,
        groups: Groups,
        launches: Launches,
        outbox: Outbox,
        settings: Settings,
    ) -> None:
        self._store = store
        self._desk = desk
        self._functions = functions
        self._groups = groups
        self._launches = launches
        self._outbox = outbox
        self._settings = settings
        self._claimed: OrderedDict[UUID, tuple[str, UserEndpoint]] = OrderedDict()

    async def take(self, caller: Principal, endpoint_id: UUID, asked: Submission) -> Submitted:
        """Commit the batch; the answer names every task in the order of the request."""
        endpoint = await self._desk.endpoint_to_use(caller, endpoint_id)
        batch = self._read(asked)
        await self._check_functions(caller, endpoint, list(batch.payloads))
        group = await self._groups.claim(batch.group, caller.id, bundles=bool(asked.bundles))
        if asked.create_queue:
            await self._groups.declare(group)
        runs_on = await self._claim(caller, endpoint, asked)
        tasks = _tasks(batch, caller, runs_on.id if runs_on else endpoint.id)
        new = set(await self._store.add_tasks(tasks))
        attempt = await self._send(endpoint, runs_on, [task for task in tasks if task.id in new])
        if attempt is not None and not asked.bundles:
            await self._wait(attempt)
        return Submitted(
            request_id=str(uuid4()),
            task_group_id=str(batch.group),
            endpoint_id=str(endpoint.id),
            tasks={str(function): [str(id_) for id_ in ids] for function, ids in batch.ids.items()},
        )

    async def _check_functions(self, caller: Principal, endpoint: Endpoint, ids: list[UUID]) -> None:
        self._desk.check_allowed(endpoint, ids)
        for function in await self._functions.find_all(ids):
            self._desk.check_runnable(caller, endpoint, function)

    async def _claim(self, caller: Principal, endpoint: Endpoint, asked: Submission) -> UserEndpoint | None:
        """The user endpoint that is this person's with these values; None when the endpoint itself runs tasks."""
        values = asked.user_endpoint_config or {}
        text = bounded_json(values, "user_endpoint_config", self._settings.max_config_bytes, self._settings.max_depth)
        if endpoint.kind is EndpointKind.SINGLE:
            if values:
                raise Invalid(why="user_endpoint_config: this endpoint runs tasks itself and takes no values")
            return None
        runtime = bounded_json(asked.user_runtime or {}, "user_runtime", _MAX_RUNTIME_BYTES, self._settings.max_depth)
        key = UserEndpointKey.of(endpoint.id, caller.id, values)
        known = self._claimed.get(key.id)
        if known is not None and known[0] == runtime and known[1].key == key:
            self._claimed.move_to_end(key.id)
            return known[1]
        claimed = await self._store.claim_user_endpoint(key, text, runtime)
        self._claimed[key.id] = (runtime, claimed)
        if len(self._claimed) > _REMEMBERED:
            self._claimed.popitem(last=False)
        return claimed

    async def _send(self, endpoint: Endpoint, runs_on: UserEndpoint | None, tasks: list[Task]) -> Attempt | None:
        if not tasks:
            return None
        if runs_on is None:
            self._outbox.put(endpoint.id, tasks)
            return None
        attempt = await self._launches.reach(runs_on, endpoint)
        self._outbox.put(runs_on.id, tasks)
        return attempt

    async def _wait(self, attempt: Attempt) -> None:
        """Official clients learn of a failed start from this answer; a manager that is away is not waited for."""
        until = time.monotonic() + self._settings.submit_wait_s
        while not attempt.done.done() and not attempt.manager_away and (left := until - time.monotonic()) > 0:
            await asyncio.wait([attempt.done], timeout=min(left, 0.25))
        error: MusterError | None = attempt.done.result() if attempt.done.done() else None
        if error is not None:
            raise Invalid(str(error), why=error.message())

    def _read(self, asked: Submission) -> _Batch:
        payloads = {uuid_of(id_, "tasks"): some for id_, some in asked.tasks.items()}
        count = sum(len(some) for some in payloads.values())
        if not count or not all(payloads.values()):
            raise Invalid(why="tasks: there are none, or none of a function that is named")
        if count > self._settings.max_tasks:
            raise Invalid(why=f"tasks: {count} are over the limit of {self._settings.max_tasks} in one request")
        if len(payloads) != len(asked.tasks):
            raise Invalid(why="tasks: a function is named twice")
        if any(not payload or "\x00" in payload for some in payloads.values() for payload in some):
            raise Invalid(why="tasks: a payload is empty, or no text")
        return _Batch(
            group=uuid_of(asked.task_group_id, "task_group_id") if asked.task_group_id else uuid4(),
            ids=_ids(asked, payloads, count),
            payloads=payloads,
            resources=self._resources(asked),
            serializers=_serializers(asked.result_serializers or ()),
        )

    def _resources(self, asked: Submission) -> str | None:
        if not asked.resource_specification:
            return None
        bounded_json(asked.resource_specification, "resource_specification", _MAX_RESOURCES_BYTES, 8)
        return json.dumps(asked.resource_specification)


def _tasks(batch: _Batch, caller: Principal, runs_on: UUID) -> list[Task]:
    now = time.time()
    return [
        Task(id_, batch.group, caller.id, runs_on, function, payload, batch.resources, batch.serializers, now)
        for function, payloads in batch.payloads.items()
        for id_, payload in zip(batch.ids[function], payloads, strict=True)
    ]


def _ids(asked: Submission, payloads: dict[UUID, list[str]], count: int) -> dict[UUID, list[UUID]]:
    """The submitter's own ids, or new ones."""
    if asked.task_ids is None:
        fresh = iter(time_ordered_ids(count))
        return {function: [next(fresh) for _ in some] for function, some in payloads.items()}
    given = {uuid_of(f, "task_ids"): [uuid_of(id_, "task_ids") for id_ in ids] for f, ids in asked.task_ids.items()}
    if {function: len(ids) for function, ids in given.items()} != {f: len(some) for f, some in payloads.items()}:
        raise Invalid(why="task_ids: must have the same functions and the same counts as tasks")
    if len({id_ for ids in given.values() for id_ in ids}) != count:
        raise Invalid(why="task_ids: an id is there twice")
    return given


def _serializers(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > _MAX_SERIALIZERS or any(len(name) > _MAX_SERIALIZER_CHARACTERS for name in names):
        raise Invalid(why="result_serializers: too many, or too long")
    return tuple(names)
