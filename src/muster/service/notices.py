"""Notices: tells whoever waits for a task how it ended, on the queue of its group."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from muster.errors import NoSuchQueue, Outage, QueueFull
from muster.model.task import Outcome, TaskGroup
from muster.service.groups import Groups
from muster.transport.contract import Outgoing, Transport
from muster.wire import bundle, topology
from muster.wire.envelope import ErrorDetails, ResultMessage, TaskStatus, encode

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """An outcome that was new, and the official message it arrived in, if it did."""

    group: UUID
    outcome: Outcome
    message: bytes | None = None


class Notices:
    """Publishes outcomes that are in the store already: a queue that is gone loses nothing."""

    def __init__(self, transport: Transport, groups: Groups) -> None:
        self._transport = transport
        self._groups = groups

    async def tell(self, ended: Sequence[Ended]) -> None:
        """Every group at once: a group whose queue is gone must not hold up another."""
        by_group: dict[UUID, list[Ended]] = defaultdict(list)
        for one in ended:
            by_group[one.group].append(one)
        await asyncio.gather(*(self._tell_group(group, some) for group, some in by_group.items()))

    async def _tell_group(self, id_: UUID, ended: list[Ended]) -> None:
        group = await self._groups.find(id_)
        if group is None:
            return
        messages = _bundled(group, ended) if group.bundles else [_single(group, one) for one in ended]
        while True:
            try:
                await self._transport.publish(messages)
            except NoSuchQueue:
                return  # nobody asked for a queue, or it was retired: the results are in the store
            except QueueFull as why:  # nobody reads it: whoever comes back finds all results in the store
                log.info("the queue of group %s goes, its results stay in the store: %s", id_, why)
                await self._groups.retire(id_)
                return
            except Outage as why:
                log.warning("results of group %s wait for the broker: %s", id_, why)
                await asyncio.sleep(_PATIENCE_S)
            else:
                return


def _single(group: TaskGroup, ended: Ended) -> Outgoing:
    outcome = ended.outcome
    return Outgoing(
        exchange="",
        routing_key=topology.group_queue(group.owner, group.id),
        body=ended.message or encode(as_message(outcome)),
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task_uuid": str(outcome.task)},
        timestamp_s=int(outcome.completed_at_s),
    )


def _bundled(group: TaskGroup, ended: list[Ended]) -> list[Outgoing]:
    return [
        Outgoing(
            exchange="",
            routing_key=topology.group_queue(group.owner, group.id),
            body=bundle.encode_results(items),
            content_type=bundle.RESULTS,
            timestamp_s=int(ended[0].outcome.completed_at_s),
        )
        for items in _portions([one.outcome for one in ended])
    ]


def _portions(outcomes: Sequence[Outcome]) -> list[list[bundle.ResultItem]]:
    """Bundles within both limits; details stand once as long as they stay the same."""
    portions: list[list[bundle.ResultItem]] = [[]]
    size, details = 0, None
    for outcome in outcomes:
        if portions[-1] and (len(portions[-1]) >= bundle.MAX_ITEMS or size + len(outcome.data) > bundle.MAX_BYTES):
            portions.append([])
            size, details = 0, None
        portions[-1].append(as_item(outcome, outcome.details if outcome.details != details else None))
        size, details = size + len(outcome.data), outcome.details
    return portions


def as_item(outcome: Outcome, details: str | None) -> bundle.ResultItem:
    code, message = outcome.error or (None, None)
    return bundle.ResultItem(
        outcome.task.bytes, outcome.data, code, message, outcome.started_ns, outcome.ended_ns, details
    )


def as_message(outcome: Outcome) -> ResultMessage:
    """The official message of an outcome that came in a bundle, or that we decided ourselves."""
    statuses = []
    if outcome.started_ns is not None:
        statuses.append(TaskStatus(timestamp=outcome.started_ns, state="execution-start"))
    if outcome.ended_ns is not None:
        statuses.append(TaskStatus(timestamp=outcome.ended_ns, state="execution-end"))
    return ResultMessage(
        task_id=str(outcome.task),
        data=outcome.data,
        details=msgspec.json.decode(outcome.details, type=dict),
        error_details=ErrorDetails(code=outcome.error[0], user_message=outcome.error[1]) if outcome.error else None,
        task_statuses=statuses,
    )
