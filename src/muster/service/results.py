"""Results: from the endpoints into the store, from the store to whoever waits. Acknowledged after commit."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import msgspec

from muster.errors import MusterError, Outage, ResultTooLarge, UndecodableMessage
from muster.model.task import Outcome
from muster.service.launches import Launches
from muster.service.notices import Ended, Notices
from muster.store.contract import ComputeStore
from muster.transport.contract import Delivery, Transport
from muster.wire import bundle, topology
from muster.wire.envelope import ResultMessage, TaskStatus, decode
from muster.wire.rest import LIMIT_RESULT_CHARACTERS

log = logging.getLogger(__name__)

_AHEAD = 2000
_PATIENCE_S = 2.0
_LIMIT_CODE_CHARACTERS = 200
_LIMIT_MESSAGE_CHARACTERS = 64 * 1024
_LIMIT_DETAILS_CHARACTERS = 64 * 1024

Reported = tuple[Outcome, bytes | None]  # with the official message it came in


class Results:
    """The one reader of the results queue."""

    def __init__(self, store: ComputeStore, transport: Transport, notices: Notices, launches: Launches) -> None:
        self._store = store
        self._transport = transport
        self._notices = notices
        self._launches = launches

    async def run(self) -> None:
        async for deliveries in self._transport.consume(topology.RESULTS, ahead=_AHEAD):
            await self._take(deliveries)
            for delivery in deliveries:
                delivery.ack()

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        """Store and tell; when that fails for a batch, each delivery by itself, so that one cannot block the rest."""
        try:
            await self._store_all(deliveries)
        except Exception:  # the edge of the consumer: a result that cannot be stored must not stop the others
            log.exception("%d result message(s) could not be stored together; one by one now", len(deliveries))
            for delivery in deliveries:
                try:
                    await self._store_all([delivery])
                except Exception:  # the same edge, for the one that is at fault
                    log.exception("a result from %s was given up", delivery.routing_key[:80])

    async def _store_all(self, deliveries: Sequence[Delivery]) -> None:
        by_endpoint: dict[UUID, dict[UUID, Reported]] = defaultdict(dict)
        for delivery in deliveries:
            endpoint = topology.sender(delivery.routing_key)
            if endpoint is None:
                log.warning("a result under the key %r was dropped", delivery.routing_key[:80])
                continue
            for outcome, message in _read(delivery):
                by_endpoint[endpoint].setdefault(outcome.task, (outcome, message))
        ended = await asyncio.gather(*(self._finish(endpoint, some) for endpoint, some in by_endpoint.items()))
        await self._notices.tell([one for some in ended for one in some])

    async def _finish(self, endpoint: UUID, reported: dict[UUID, Reported]) -> list[Ended]:
        outcomes = [outcome for outcome, _ in reported.values()]
        while True:
            try:
                finished = await self._store.finish(outcomes, endpoint)
                break
            except Outage as why:
                log.warning("%d result(s) wait for the store: %s", len(outcomes), why)
                await asyncio.sleep(_PATIENCE_S)
        if finished:
            self._launches.progressed(endpoint)
        if len(finished) < len(outcomes):
            log.info("%s sent %d result(s) that were no news", endpoint, len(outcomes) - len(finished))
        return [Ended(one.group, *reported[one.task]) for one in finished]


def _read(delivery: Delivery) -> list[Reported]:
    """The outcomes in one message; what is no result is logged and dropped."""
    try:
        if delivery.content_type == bundle.RESULTS:
            return [(outcome, None) for outcome in from_bundle(bundle.decode_results(delivery.body))]
        message = decode(delivery.body)
        if not isinstance(message, ResultMessage):
            raise UndecodableMessage(why="not a result")
        said = _said(message)
    except (MusterError, ValueError, RecursionError) as why:
        log.warning("a message from %s was dropped: %s", delivery.routing_key[:80], why)
        return []
    outcome = _checked(said)
    return [(outcome, delivery.body if outcome is said else None)]  # what we changed must not go on as it came


def from_bundle(items: Sequence[bundle.ResultItem]) -> list[Outcome]:
    outcomes, details, now = [], "{}", time.time()
    for item in items:
        details = _object(item.details) if item.details is not None else details
        error = (item.error_code, item.error_message or "") if item.error_code is not None else None
        outcomes.append(
            _checked(Outcome(UUID(bytes=item.task), item.data, error, details, item.started_ns, item.ended_ns, now))
        )
    return outcomes


def from_message(message: ResultMessage) -> Outcome:
    return _checked(_said(message))


def _said(message: ResultMessage) -> Outcome:
    failed = message.error_details
    return Outcome(
        task=UUID(message.task_id),
        data=message.data,
        error=(failed.code, failed.user_message) if failed else None,
        details=json.dumps(message.details or {}),
        started_ns=_moment(message.task_statuses, "execution-start"),
        ended_ns=_moment(message.task_statuses, "execution-end"),
        completed_at_s=time.time(),
    )


def _checked(outcome: Outcome) -> Outcome:
    """Within the limits, and what a database takes; the very same when there was nothing to change."""
    code, message = outcome.error or ("", "")
    if len(code) > _LIMIT_CODE_CHARACTERS or len(message) > _LIMIT_MESSAGE_CHARACTERS:
        outcome = replace(outcome, error=(code[:_LIMIT_CODE_CHARACTERS], message[:_LIMIT_MESSAGE_CHARACTERS]))
    if len(outcome.details) > _LIMIT_DETAILS_CHARACTERS:
        outcome = replace(outcome, details="{}")
    if not (_is_moment(outcome.started_ns) and _is_moment(outcome.ended_ns)):
        outcome = replace(outcome, started_ns=None, ended_ns=None)
    if "\x00" in outcome.data or (outcome.error and "\x00" in "".join(outcome.error)):
        error_text = tuple(part.replace("\x00", "\ufffd") for part in outcome.error or ())
        pair = (error_text[0], error_text[1]) if outcome.error else None
        outcome = replace(outcome, data=outcome.data.replace("\x00", "\ufffd"), error=pair)
    if len(outcome.data) <= LIMIT_RESULT_CHARACTERS:
        return outcome
    error = ResultTooLarge(size_bytes=len(outcome.data), limit_bytes=LIMIT_RESULT_CHARACTERS)
    return replace(outcome, data=error.message(), error=(error.code, error.message()))


def _moment(statuses: Sequence[TaskStatus], state: str) -> int | None:
    return next((status.timestamp for status in statuses if status.state == state), None)


def _is_moment(at_ns: int | None) -> bool:
    return at_ns is None or 0 <= at_ns < 2**63


def _object(text: str) -> str:
    """Details are JSON of somebody else's making: they must be an object, for every reader, before they go on."""
    if len(text) > _LIMIT_DETAILS_CHARACTERS:
        return "{}"
    try:
        msgspec.json.decode(text, type=dict)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "{}"
    return text
