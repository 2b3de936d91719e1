"""The thread of one Executor that sends: one POST in flight, and what queues up meanwhile goes with the next."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from muster.errors import MusterError, Outage, TooLarge
from muster.sdk.batching import Call, Lane, Outbox
from muster.sdk.futures import ComputeFuture, abandon, settle
from muster.sdk.runtime import user_runtime
from muster.wire.rest import LIMIT_SUBMIT_BYTES, Submission, Submitted

if TYPE_CHECKING:
    from muster.rest import Rest
    from muster.sdk.functions import Functions
    from muster.sdk.results import ResultsReader

log = logging.getLogger(__name__)

PATIENCE_S = 120.0  # an outage up to this long is waited out
PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ENVELOPE_BYTES = 16 * 1024  # what a POST holds beside the payload and the user's documents


class Submitter:
    """Everything an Executor has under way. Knows nothing of the Executor, so that a forgotten one can be collected."""

    def __init__(self, rest: Rest, functions: Functions, reader: ResultsReader, name: str) -> None:
        self._rest = rest
        self._functions = functions
        self._reader = reader
        self._outbox = Outbox()
        self._open: set[Future[Any]] = set()
        self._groups: set[str] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._given_up = threading.Event()
        self._down_since_s: float | None = None
        self.batch_size = 1
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def put(self, lane: Lane, call: Call) -> bool:
        """Take a call on, to be sent as soon as the thread is free; False after close."""
        self.adopt(lane.group, call.future)
        if oversized := too_large(lane, call):
            settle(call.future, error=oversized)
            return True
        if self._outbox.put(lane, call):
            return True
        self._done(call.future)
        return False

    def adopt(self, group: str, future: ComputeFuture) -> None:
        """Count a future as under way until it is done."""
        with self._lock:
            if group not in self._groups:
                self._groups.add(group)
                self._reader.attach(group)
                if not self._thread.ident:
                    self._thread.start()
            self._open.add(future)
        future.add_done_callback(self._done)

    def await_results(self, group: str, futures: Iterable[ComputeFuture]) -> None:
        """Take on futures of tasks that the service has already."""
        for future in futures:
            future.set_running_or_notify_cancel()
            future.sent_at_s = time.monotonic()
            self.adopt(group, future)
            self._reader.expect([future])
        if group in self._groups:
            self._reader.watch(group)

    def forget(self, future: ComputeFuture) -> None:
        """Its outcome was found another way."""
        self._reader.forget([future])

    def open_futures(self) -> list[Future[Any]]:
        with self._lock:
            return list(self._open)

    def close(self, *, cancel: bool = False) -> None:
        """Send what is queued and take nothing more; with `cancel`, end every future that is not done."""
        self._closed = True
        if cancel:
            self._given_up.set()
            for call in self._outbox.drain():
                abandon(call.future)
        self._outbox.close()
        if cancel:
            for future in self.open_futures():
                if isinstance(future, ComputeFuture):
                    self._reader.forget([future])
                    abandon(future)
        self._release_when_done()

    def flush(self, timeout_s: float) -> None:
        """Wait until what was queued is sent; for the end of the interpreter."""
        self.close()
        if self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads, when all futures are done."""
        if self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._reader.join(timeout_s)

    def _done(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)
        if self._closed:
            self._release_when_done()

    def _release_when_done(self) -> None:
        with self._lock:
            groups = set() if self._open or not self._closed else set(self._groups)
            self._groups -= groups
        for group in groups:
            self._reader.release(group)

    def _run(self) -> None:
        while (batch := self._outbox.take(self.batch_size)) is not None:
            lane, calls = batch
            calls = [call for call in calls if call.future.set_running_or_notify_cancel()]
            try:
                self._send(lane, self._with_ids(calls))
            except Exception as why:
                log.debug("a batch failed", exc_info=True)
                self._fail(calls, why)
        self._rest.close()

    def _with_ids(self, calls: list[Call]) -> list[Call]:
        """The calls whose function is registered; the others have failed."""
        refused: dict[int, BaseException] = {}
        for code in {id(call.code): call.code for call in calls if call.code.id is None}.values():
            try:
                self._patiently(self._functions.id_of, code)
            except Exception as why:  # noqa: BLE001 - the tasks of other functions go on
                refused[id(code)] = why
        for call in calls:
            if id(call.code) in refused:
                self._fail([call], refused[id(call.code)])
        return [call for call in calls if id(call.code) not in refused]

    def _send(self, lane: Lane, calls: list[Call]) -> None:
        if not calls:
            return
        futures = [call.future for call in calls]
        self._reader.expect(futures)
        try:
            self._patiently(self._post, lane, submission(lane, calls))
        except BaseException:
            self._reader.forget(futures)
            raise
        now_s = time.monotonic()
        for future in futures:
            future.sent_at_s = now_s
        self._reader.watch(lane.group)

    def _post(self, lane: Lane, document: Submission) -> None:
        path = f"/v3/endpoints/{lane.endpoint}/submit"
        answer = self._rest.call("POST", path, document, Submitted, repeatable=True)
        if answer.tasks != document.task_ids:
            raise MusterError("the service answered with other task ids than ours; it is too old for this SDK")

    def _patiently(self, do: Any, *arguments: Any) -> None:
        """Our task ids make repeating harmless, so an outage is waited out, a refusal is not."""
        for tried in range(1_000_000):
            try:
                do(*arguments)
            except Outage as why:
                now_s = time.monotonic()
                self._down_since_s = self._down_since_s or now_s
                if now_s - self._down_since_s > PATIENCE_S or self._given_up.is_set():
                    raise
                if tried == 0:
                    log.warning("tasks cannot be sent at the moment (%s); trying again", why)
                self._given_up.wait(PAUSES_S[min(tried, len(PAUSES_S) - 1)])
            else:
                self._down_since_s = None
                return

    def _fail(self, calls: Iterable[Call], why: BaseException) -> None:
        for call in calls:
            settle(call.future, error=_own_copy(why))


def submission(lane: Lane, calls: list[Call]) -> Submission:
    """The document of one POST."""
    tasks: dict[str, list[str]] = {}
    task_ids: dict[str, list[str]] = {}
    for call in calls:
        assert call.code.id is not None
        tasks.setdefault(call.code.id, []).append(call.payload)
        task_ids.setdefault(call.code.id, []).append(call.future.task_id)
    return Submission(
        tasks=tasks,
        task_ids=task_ids,
        create_queue=True,
        task_group_id=lane.group,
        resource_specification=_document(lane.resources),
        user_endpoint_config=_document(lane.config),
        result_serializers=list(lane.serializers) or None,
        user_runtime=user_runtime(),
        bundles=1,
    )


def too_large(lane: Lane, call: Call) -> TooLarge | None:
    """Why this call could never be sent; one that is too large must not take the others of its batch with it."""
    room = LIMIT_SUBMIT_BYTES - ENVELOPE_BYTES - len(lane.config or "") - len(lane.resources or "")
    if len(call.payload) * 6 <= room:  # JSON writes at most six bytes for a character
        return None
    size = len(msgspec.json.encode(call.payload))
    if size <= room:
        return None
    return TooLarge(what="This call, with its arguments,", size_bytes=size, limit_bytes=room)


def _document(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text)


def _own_copy(why: BaseException) -> BaseException:
    """Each future raises its own: a shared one would collect the tracebacks of all of them."""
    mine = copy.copy(why)
    mine.__cause__ = why.__cause__
    return mine
