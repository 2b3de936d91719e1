"""Sends every result: first to the spool, then to the broker, and forgets it only when the broker has promised."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from muster.endpoint.journal import Journal
from muster.endpoint.links import Links
from muster.endpoint.spool import Spool
from muster.errors import NoSuchQueue, Outage, ResultTooLarge, TaskError
from muster.transport.contract import Outgoing, Transport
from muster.wire.bundle import MAX_BYTES, MAX_ITEMS, ResultItem, encode_results
from muster.wire.envelope import ErrorDetails, ResultMessage, TaskStatus
from muster.wire.rest import LIMIT_RESULT_CHARACTERS

log = logging.getLogger(__name__)

_ROUND_BYTES = 16 * 1024 * 1024  # published at once; what comes meanwhile goes with the next round
_PAUSES_S = (0.5, 1, 2, 5)


@dataclass(slots=True)
class _Parcel:
    """Results that travel together, and their ticket at the spool."""

    items: list[ResultItem]
    body: bytes
    ticket: int | None


class Outbox:
    """`deliver` is what an engine calls; `confirmed` is called with task ids once the broker has their results."""

    def __init__(
        self,
        links: Links,
        spool: Spool,
        journal: Journal,
        confirmed: Callable[[list[bytes]], None],
        limit_characters: int = LIMIT_RESULT_CHARACTERS,
    ) -> None:
        self._links = links
        self._spool = spool
        self._journal = journal
        self._confirmed = confirmed
        self._limit_characters = limit_characters
        self._parcels: deque[_Parcel] = deque()
        self._held: set[bytes] = set()
        self._details: dict[str | None, str] = {}
        self._something = asyncio.Event()
        self._nothing = asyncio.Event()
        self._nothing.set()
        self.delivered = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, task: object) -> bool:
        return task in self._held

    def recover(self) -> None:
        """Take over what an earlier incarnation could not send."""
        count, safe = 0, True
        for items in self._spool.inherited():
            left = [item for item in items if not self._journal.ended(item.task)]
            count += len(left)
            safe = self._keep(left) and safe
        if safe:
            self._spool.forget_inherited()
        if count:
            log.info("Sending %d results that an earlier process left behind.", count)

    def deliver(self, items: list[ResultItem]) -> None:
        """Take results: on disk before this returns, sent as soon as possible."""
        self.delivered += len(items)
        details, complete = None, []
        for item in items:
            details = item.details or details
            complete.append(self._complete(item, details))
        self._keep(complete)

    def refuse(self, task: bytes, why: TaskError | None = None, *, code: str = "", message: str = "") -> None:
        """Answer for a task that will not run."""
        code, message = (why.code, why.message()) if why is not None else (code, message)
        self.deliver([ResultItem(task, message, code, message)])

    async def run(self, transport: Transport) -> None:
        """Send until cancelled. CredentialsRefused ends it; outages do not."""
        failures = 0
        while True:
            await self._something.wait()
            parcels = self._round()
            try:
                await transport.publish(list(self._messages(parcels)))
            except (Outage, NoSuchQueue) as why:
                self._put_back(parcels)
                log.log(logging.DEBUG if failures else logging.WARNING, "Results cannot be sent now (%s).", why)
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1
                continue
            except BaseException:
                self._put_back(parcels)
                raise
            if failures:
                log.info("Results can be sent again.")
            failures = 0
            self._done(parcels)

    async def flushed(self) -> None:
        """Return when everything is confirmed."""
        await self._nothing.wait()

    def _round(self) -> list[_Parcel]:
        parcels: list[_Parcel] = []
        size = 0
        while self._parcels and (not parcels or size + len(self._parcels[0].body) <= _ROUND_BYTES):
            parcel = self._parcels.popleft()
            size += len(parcel.body)
            parcels.append(parcel)
        if not self._parcels:
            self._something.clear()
        return parcels

    def _put_back(self, parcels: list[_Parcel]) -> None:
        self._parcels.extendleft(reversed(parcels))
        self._something.set()

    def _done(self, parcels: list[_Parcel]) -> None:
        tasks = [item.task for parcel in parcels for item in parcel.items]
        self._journal.end(tasks)
        for parcel in parcels:
            self._spool.confirm(parcel.ticket)
        self._held.difference_update(tasks)
        if not self._held and not self._parcels:
            self._nothing.set()
        self._confirmed(tasks)

    def _keep(self, items: list[ResultItem]) -> bool:
        """Whether all of it is on disk."""
        safe = True
        for part in _parts(items):
            body = encode_results(part)
            ticket = self._spool.append(body)
            safe = safe and ticket is not None
            self._parcels.append(_Parcel(part, body, ticket))
            self._held.update(item.task for item in part)
        if items:
            self._nothing.clear()
            self._something.set()
        return safe

    def _complete(self, item: ResultItem, given: str | None) -> ResultItem:
        """With the endpoint's id in its details, and within the limit."""
        details = self._details.get(given)
        if details is None:
            if len(self._details) > 1000:
                self._details.clear()
            details = json.dumps({**json.loads(given or "{}"), "endpoint_id": str(self._links.endpoint)})
            self._details[given] = details
        size = len(item.data)
        if size <= self._limit_characters:
            return msgspec.structs.replace(item, details=details)
        if item.error_code is not None:
            return msgspec.structs.replace(item, data=item.data[: self._limit_characters], details=details)
        error = ResultTooLarge(size_bytes=size, limit_bytes=self._limit_characters)
        return ResultItem(
            item.task, error.message(), error.code, error.message(), item.started_ns, item.ended_ns, details
        )

    def _messages(self, parcels: list[_Parcel]) -> Iterator[Outgoing]:
        if not self._links.bundles:
            for parcel in parcels:
                yield from (self._links.result(official(item)) for item in parcel.items)
            return
        for group in _groups(parcels):
            whole = group[0].body if len(group) == 1 else encode_results([i for parcel in group for i in parcel.items])
            yield self._links.bundle(whole)


def official(item: ResultItem) -> ResultMessage:
    """The same result, as the official clients read it."""
    statuses = []
    if item.started_ns is not None:
        statuses.append(TaskStatus(timestamp=item.started_ns, state="execution-start"))
    if item.ended_ns is not None:
        statuses.append(TaskStatus(timestamp=item.ended_ns, state="execution-end"))
    details: dict[str, Any] = json.loads(item.details or "{}")
    error = None
    if item.error_code is not None:
        error = ErrorDetails(code=item.error_code, user_message=item.error_message or "")
    return ResultMessage(
        task_id=str(UUID(bytes=item.task)), data=item.data, details=details, error_details=error, task_statuses=statuses
    )


def _parts(items: Iterable[ResultItem]) -> Iterator[list[ResultItem]]:
    part: list[ResultItem] = []
    size = 0
    for item in items:
        weight = len(item.data)
        if part and (len(part) >= MAX_ITEMS or size + weight > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += weight
    if part:
        yield part


def _groups(parcels: list[_Parcel]) -> Iterator[list[_Parcel]]:
    """Neighbours that fit into one bundle: small results that queued up while others were being sent."""
    group: list[_Parcel] = []
    count = size = 0
    for parcel in parcels:
        if group and (count + len(parcel.items) > MAX_ITEMS or size + len(parcel.body) > MAX_BYTES):
            yield group
            group, count, size = [], 0, 0
        group.append(parcel)
        count += len(parcel.items)
        size += len(parcel.body)
    if group:
        yield group
