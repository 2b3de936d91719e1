"""The outbox: tasks on their way to endpoints. One sender each sends what queued up while it was sending."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from muster.errors import FunctionNotFound, NoSuchQueue, Outage, QueueFull
from muster.model.task import Task
from muster.service import queues
from muster.service.chores import Chores
from muster.service.endings import Endings
from muster.service.functions import Functions
from muster.store.contract import ComputeStore
from muster.transport.contract import Outgoing, Transport
from muster.wire import bundle, topology
from muster.wire.envelope import TaskMessage, encode

log = logging.getLogger(__name__)

_AT_ONCE = 1000
_HELD_AT_ONCE = 32  # their sizes are unknown before they are read
_AT_ONCE_BYTES = bundle.MAX_BYTES
_PATIENCE_S = 2.0


@dataclass(slots=True)
class _Lane:
    """Tasks for one endpoint: `held` ids stay in the store until somebody reads the queue, `ready` ones go now."""

    open: bool = False
    bundles: bool = False
    sending: bool = False
    held: deque[UUID] = field(default_factory=deque)
    ready: deque[Task] = field(default_factory=deque)


class Outbox:
    """The store holds every task; the outbox knows which of them their endpoint has not been sent."""

    def __init__(
        self, store: ComputeStore, transport: Transport, functions: Functions, endings: Endings, chores: Chores
    ) -> None:
        self._store = store
        self._transport = transport
        self._functions = functions
        self._endings = endings
        self._chores = chores
        self._lanes: dict[UUID, _Lane] = {}

    def put(self, endpoint: UUID, tasks: Sequence[Task]) -> None:
        """Send these now when somebody reads the queue, else as soon as somebody does."""
        lane = self._lanes.setdefault(endpoint, _Lane())
        if lane.open and not lane.held:
            lane.ready.extend(tasks)
        else:
            lane.held.extend(task.id for task in tasks)
        self._wake(endpoint, lane)

    def put_ids(self, endpoint: UUID, ids: Iterable[UUID]) -> None:
        """The same for tasks that are only in the store."""
        lane = self._lanes.setdefault(endpoint, _Lane())
        lane.held.extend(ids)
        self._wake(endpoint, lane)

    def open(self, endpoint: UUID, *, bundles: bool) -> None:
        """Somebody reads the endpoint's queue; `bundles` says what they can read."""
        lane = self._lanes.setdefault(endpoint, _Lane())
        lane.open, lane.bundles = True, bundles
        self._wake(endpoint, lane)

    def hold(self, endpoint: UUID) -> None:
        """Nobody reads the queue any more."""
        lane = self._lanes.get(endpoint)
        if lane is not None:
            lane.open = False
            lane.held.extend(task.id for task in lane.ready)
            lane.ready.clear()
            if not lane.held and not lane.sending:
                del self._lanes[endpoint]

    def is_open(self, endpoint: UUID) -> bool:
        lane = self._lanes.get(endpoint)
        return lane is not None and lane.open

    def waiting(self, endpoint: UUID) -> int:
        lane = self._lanes.get(endpoint)
        return 0 if lane is None else len(lane.held) + len(lane.ready) + lane.sending

    def drop(self, endpoint: UUID, ids: Iterable[UUID]) -> None:
        """These ended: nobody needs to run them."""
        lane = self._lanes.get(endpoint)
        if lane is not None:
            gone = set(ids)
            lane.held = deque(id_ for id_ in lane.held if id_ not in gone)

    def _wake(self, endpoint: UUID, lane: _Lane) -> None:
        if lane.open and not lane.sending and (lane.held or lane.ready):
            lane.sending = True
            self._chores.start(self._send(endpoint, lane), f"tasks to {endpoint}")

    async def _send(self, endpoint: UUID, lane: _Lane) -> None:
        try:
            while lane.open and (lane.held or lane.ready):
                await self._send_some(endpoint, lane, await self._next(lane))
        finally:
            lane.sending = False

    async def _send_some(self, endpoint: UUID, lane: _Lane, tasks: list[Task]) -> None:
        if not tasks:
            return
        try:
            await self._transport.publish(await self._messages(endpoint, lane, tasks))
        except NoSuchQueue:
            log.warning("the queue of %s is gone; made again", endpoint)
            await self._transport.declare(queues.tasks(endpoint))
            _put_back(lane, tasks)
        except QueueFull as why:  # wherever it is read too slowly, tasks wait in the store and not in memory
            log.info("%d task(s) for %s wait: %s", len(tasks), endpoint, why)
            lane.held.extendleft(task.id for task in reversed([*tasks, *lane.ready]))
            lane.ready.clear()
            await asyncio.sleep(_PATIENCE_S)
        except Outage as why:
            log.warning("%d task(s) for %s wait for the broker: %s", len(tasks), endpoint, why)
            _put_back(lane, tasks)
            await asyncio.sleep(_PATIENCE_S)

    async def _next(self, lane: _Lane) -> list[Task]:
        """The oldest first; what was held is read from the store, unless it ended meanwhile."""
        if lane.held:
            ids = [lane.held.popleft() for _ in range(min(len(lane.held), _HELD_AT_ONCE))]
            ended = await self._store.outcomes(ids)
            tasks = await self._store.tasks([id_ for id_ in ids if id_ not in ended])
            return _first([tasks[id_] for id_ in ids if id_ in tasks], lane)
        some: list[Task] = []
        size = 0
        while lane.ready and len(some) < _AT_ONCE and size < _AT_ONCE_BYTES:
            task = lane.ready.popleft()
            some.append(task)
            size += len(task.payload)
        return some

    async def _messages(self, endpoint: UUID, lane: _Lane, tasks: list[Task]) -> list[Outgoing]:
        code: dict[UUID, str] = {}
        lost: list[Task] = []
        for task in tasks:
            if task.function in code:
                continue
            function = await self._functions.find(task.function)
            if function is None:
                lost.append(task)
            else:
                code[task.function] = function.code
        if lost:  # deleted between submit and delivery: these can only end
            for id_ in {task.function for task in lost}:
                await self._endings.end([t for t in tasks if t.function == id_], FunctionNotFound(function=id_))
        runnable = [task for task in tasks if task.function in code]
        key = topology.tasks_queue(endpoint)
        if lane.bundles:
            return [_bundle_message(key, some, code) for some in portions(runnable, code)]
        return [_official_message(key, task, code[task.function]) for task in runnable]


def portions(tasks: Sequence[Task], code: dict[UUID, str]) -> list[list[Task]]:
    """Groups within the limits of a bundle; a code counts once in each."""
    out: list[list[Task]] = []
    size, named = 0, set[UUID]()
    for task in tasks:
        more = len(task.payload) + (0 if task.function in named else len(code[task.function]))
        if not out or len(out[-1]) >= bundle.MAX_ITEMS or size + more > bundle.MAX_BYTES:
            out.append([])
            size, named = 0, set()
            more = len(task.payload) + len(code[task.function])
        out[-1].append(task)
        named.add(task.function)
        size += more
    return out


def _first(tasks: list[Task], lane: _Lane) -> list[Task]:
    """As many as go at once; the others are held on."""
    size = 0
    for count, task in enumerate(tasks, 1):
        size += len(task.payload)
        if size >= _AT_ONCE_BYTES:
            lane.held.extendleft(later.id for later in reversed(tasks[count:]))
            return tasks[:count]
    return tasks


def _put_back(lane: _Lane, tasks: list[Task]) -> None:
    if lane.open:
        lane.ready.extendleft(reversed(tasks))
    else:
        lane.held.extendleft(task.id for task in reversed(tasks))


def _bundle_message(key: str, tasks: Sequence[Task], code: dict[UUID, str]) -> Outgoing:
    items = [
        bundle.TaskItem(task.id.bytes, task.function.bytes, task.payload, task.resources, task.serializers)
        for task in tasks
    ]
    used = {task.function for task in tasks}
    body = bundle.encode_tasks(bundle.TaskBundle({id_.bytes: code[id_] for id_ in used}, items))
    return Outgoing(topology.TASKS, key, body, content_type=bundle.TASKS)


def _official_message(key: str, task: Task, code: str) -> Outgoing:
    headers: dict[str, object] = {
        "function_uuid": str(task.function),
        "task_uuid": str(task.id),
        "resource_specification": task.resources or "null",
    }
    if task.serializers:
        headers["result_serializers"] = list(task.serializers)
    return Outgoing(
        topology.TASKS,
        key,
        encode(TaskMessage(task_id=str(task.id), task_buffer=code + task.payload)),
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
    )
