"""Takes tasks from the queue, once each, and acknowledges a message only when every outcome in it is confirmed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable
from uuid import UUID

from muster.endpoint.journal import Journal
from muster.endpoint.outbox import Outbox
from muster.engine.contract import Engine
from muster.errors import FunctionNotAllowed, UndecodableMessage, UserEndpointLost
from muster.transport.contract import Delivery, Transport
from muster.wire import bundle, envelope
from muster.wire.bundle import TaskItem
from muster.wire.packing import pack, unpack

log = logging.getLogger(__name__)

AHEAD = 4096  # messages unacknowledged at a time: above the workers of any one user endpoint
AHEAD_BYTES = 256 * 1024 * 1024
_POKE_S = 0.25  # while tasks wait, an engine may gain room without finishing anything: its workers arrive


class _Message:
    """One delivery, and the tasks in it whose outcome is not confirmed yet."""

    __slots__ = ("delivery", "left")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.left: set[bytes] = set()


class Inbox:
    """Feeds one engine from one queue."""

    def __init__(
        self,
        endpoint: UUID,
        engine: Engine,
        outbox: Outbox,
        journal: Journal,
        allowed_functions: Iterable[UUID] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._engine = engine
        self._outbox = outbox
        self._journal = journal
        self._allowed = None if allowed_functions is None else {function.bytes for function in allowed_functions}
        self._takes_resources = bool(getattr(engine, "takes_resources", False))
        self._messages: dict[bytes, list[_Message]] = {}  # by task
        self._waiting: deque[tuple[TaskItem, str]] = deque()
        self._running: set[bytes] = set()
        self._poke: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closed = False
        self.received = 0

    @property
    def waiting(self) -> int:
        """Tasks that no worker was given yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Tasks that the engine has."""
        return len(self._running)

    async def run(self, transport: Transport, queue: str) -> None:
        """Take tasks until cancelled, or until the transport closes."""
        async for deliveries in transport.consume(queue, ahead=AHEAD, ahead_bytes=AHEAD_BYTES, exclusive=True):
            for delivery in deliveries:
                self._take(delivery)
            self.feed()

    def close(self) -> None:
        """Take nothing more. What no worker was given goes back to the queue when the transport closes."""
        self._closed = True
        self._waiting.clear()
        if self._poke is not None:
            self._poke.cancel()

    def ended(self, tasks: Iterable[bytes]) -> None:
        """The engine is done with these."""
        self._running.difference_update(tasks)
        self.feed()
        if not self._running:
            self._quiet.set()

    async def quiet(self) -> None:
        """Return when the engine has nothing of ours."""
        await self._quiet.wait()

    def confirmed(self, tasks: Iterable[bytes]) -> None:
        """The broker has the results of these: acknowledge the messages that are complete."""
        for task in tasks:
            for message in self._messages.pop(task, ()):
                message.left.discard(task)
                if not message.left:
                    message.delivery.ack()

    def feed(self) -> None:
        """Hand the engine as much as it has room for; in the journal first."""
        while self._waiting and not self._closed and (room := self._engine.room()) > 0:
            batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            items = [item for item, _ in batch]
            tasks = [item.task for item in items]
            self._journal.start(tasks)
            self._running.update(tasks)
            self._quiet.clear()
            self._engine.submit(items, {item.function: code for item, code in batch})
        if self._waiting and not self._closed and self._poke is None:
            self._poke = asyncio.get_running_loop().call_later(_POKE_S, self._poked)

    def _poked(self) -> None:
        self._poke = None
        self.feed()

    def _take(self, delivery: Delivery) -> None:
        if self._closed:
            return  # it goes back to the queue when the transport closes
        try:
            code, items = self._read(delivery)
        except (UndecodableMessage, ValueError) as why:
            log.warning("A message on the task queue is no task and was dropped: %s", why)
            delivery.ack()
            return
        message = _Message(delivery)
        for item in items:
            self._admit(item, code, message)
        if not message.left:
            delivery.ack()

    def _admit(self, item: TaskItem, code: dict[bytes, str], message: _Message) -> None:
        if self._journal.ended(item.task):
            return  # its result is confirmed; only the acknowledgement was lost
        message.left.add(item.task)
        others = self._messages.setdefault(item.task, [])
        others.append(message)
        if len(others) > 1 or item.task in self._outbox:
            return  # under way already; the old connection's message can no longer be acknowledged, this one can
        self.received += 1
        if self._journal.lost(item.task):
            log.warning("Task %s was running when an earlier process ended.", UUID(bytes=item.task))
            self._outbox.refuse(item.task, UserEndpointLost(why="it was killed, or its machine went down"))
        elif (refusal := self._refusal(item)) is not None:
            self._outbox.refuse(item.task, code=refusal[0], message=refusal[1])
        else:
            self._waiting.append((item, code[item.function]))

    def _refusal(self, item: TaskItem) -> tuple[str, str] | None:
        if not item.function:
            return "CouldNotExecuteUserTaskError", "The task's message lacks its function (function_uuid) or its code."
        if self._allowed is not None and item.function not in self._allowed:
            error = FunctionNotAllowed(function=UUID(bytes=item.function), endpoint=self._endpoint)
            return error.code, error.message()
        if not self._takes_resources and item.resources and _asks_for_something(item.resources):
            return "InvalidResourceSpecification", (
                "This endpoint's engine takes no resource_specification; remove it, or ask the site for an MPI engine."
            )
        return None

    def _read(self, delivery: Delivery) -> tuple[dict[bytes, str], list[TaskItem]]:
        if delivery.content_type == bundle.TASKS:
            tasks = bundle.decode_tasks(delivery.body)
            return tasks.code, tasks.items
        item, code = read_official(delivery)
        return {item.function: code}, [item]


def read_official(delivery: Delivery) -> tuple[TaskItem, str]:
    """One task of the official form; its function is empty when the message does not name it."""
    message = envelope.decode(delivery.body)
    if not isinstance(message, envelope.TaskMessage):
        raise UndecodableMessage(why=f"it is a {type(message).__name__}")
    headers = delivery.headers
    named = headers.get("function_uuid") if headers.get("task_uuid") else None
    try:
        code, *payload = unpack(message.task_buffer)
    except (UndecodableMessage, ValueError):
        code, payload, named = "", [], None
    return TaskItem(
        task=UUID(message.task_id).bytes,
        function=UUID(str(named)).bytes if named else b"",
        payload=pack(payload),
        resources=headers.get("resource_specification"),
        serializers=tuple(map(str, headers.get("result_serializers") or ())),
    ), pack([code])


def _asks_for_something(resources: str) -> bool:
    try:
        return bool(json.loads(resources))
    except ValueError:
        return True
