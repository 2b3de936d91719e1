"""Reads the results of every task group in use, for one Client, in one thread.

Results arrive as messages; a poll of the service stands behind them, so that a lost message, a second process on
the same group or a restarted broker leaves no future waiting.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from muster.errors import MusterError, NoSuchQueue, Outage
from muster.rest.errands import aside
from muster.sdk.futures import ComputeFuture
from muster.sdk.outcomes import Reader, items_of, resolve
from muster.sdk.polling import Poll
from muster.wire.rest import ResultQueue

if TYPE_CHECKING:
    from muster.rest import Rest
    from muster.transport import Delivery, Transport

log = logging.getLogger(__name__)

LARGE_BYTES = 256 * 1024  # above, decoding would keep heartbeats of the connection waiting
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ResultsReader:
    """Safe from any thread. Runs while at least one group is attached; the last release ends its thread."""

    def __init__(self, rest: Rest, serializer: Reader, amqp_port: int | None = None) -> None:
        self._rest = rest
        self._serializer = serializer
        self._amqp_port = amqp_port
        self.pending: dict[bytes, ComputeFuture] = {}
        self._users: dict[str, int] = {}  # group -> how many Executors use it
        self._readable: set[str] = set()  # groups whose queue the service has made
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def attach(self, group: str) -> None:
        """Somebody will send tasks of this group: connect already."""
        with self._lock:
            self._users[group] = self._users.get(group, 0) + 1
            if self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._changed, self._unused = asyncio.Event(), asyncio.Event()
                self._poll = Poll(self._rest, self.pending, self._serializer)
                self._thread = threading.Thread(target=self._run, name="muster results", daemon=True)
                self._thread.start()
                return
        self._wake()

    def watch(self, group: str) -> None:
        """The service knows the group by now: read its queue."""
        if group not in self._readable:
            with self._lock:
                self._readable.add(group)
            self._wake()

    def release(self, group: str) -> None:
        """One user less; nobody reads a group without users."""
        with self._lock:
            left = self._users.get(group, 0) - 1
            if left > 0:
                self._users[group] = left
            else:
                self._users.pop(group, None)
                self._readable.discard(group)
        self._wake()

    def expect(self, futures: Iterable[ComputeFuture]) -> None:
        self.pending.update((future.key, future) for future in futures)

    def forget(self, futures: Iterable[ComputeFuture]) -> None:
        for future in futures:
            self.pending.pop(future.key, None)

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, when nobody uses it any more; a callback of a future may not wait here."""
        with self._lock:
            thread = self._thread if not self._users else None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _wake(self) -> None:
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        self._changed.set()
        if self._users:
            self._unused.clear()
        else:
            self._unused.set()

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._main())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()

    def _ended(self) -> bool:
        """Whether the thread may end. Decided under the lock: an attach after it starts a new thread."""
        with self._lock:
            if self._users:
                return False
            self._loop = self._thread = None
            return True

    async def _main(self) -> None:
        poll = asyncio.create_task(self._poll.run())
        failures = 0
        try:
            while not self._ended():
                try:
                    await self._session()
                    failures = 0
                except MusterError as why:
                    pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
                    failures += 1
                    told = log.debug if isinstance(why, Outage) and failures > 1 else log.warning
                    told("results are not delivered now (%s); trying again, and asking the service for them", why)
                    await self._pause(pause_s)
        finally:
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)

    async def _session(self) -> None:
        """Read with one transport until nobody uses it, or until it gives up."""
        from muster.transport.amqp import AmqpTransport

        prefix = (await self._queue()).queue_prefix
        transport = AmqpTransport(self._url, label="muster results")
        readers: dict[str, asyncio.Task[None]] = {}
        try:
            await transport.open()
            while self._users:
                self._changed.clear()
                self._adjust(transport, prefix, readers)
                waiter = asyncio.create_task(self._changed.wait())
                done, _ = await asyncio.wait({waiter, *readers.values()}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                for group in [group for group, task in readers.items() if task in done]:
                    readers.pop(group).result()
        finally:
            for task in readers.values():
                task.cancel()
            await asyncio.gather(*readers.values(), return_exceptions=True)
            await transport.close()

    def _adjust(self, transport: Transport, prefix: str, readers: dict[str, asyncio.Task[None]]) -> None:
        with self._lock:
            wanted = set(self._readable)
        for group in wanted - readers.keys():
            readers[group] = asyncio.create_task(self._read(transport, prefix, group))
        for group in readers.keys() - wanted:
            readers.pop(group).cancel()

    async def _read(self, transport: Transport, prefix: str, group: str) -> None:
        for failures in range(1_000_000):
            try:
                async for deliveries in transport.consume(prefix + group):
                    await self._take(deliveries)
                raise Outage(what="The results queue")
            except NoSuchQueue:
                # Reading a group makes the service declare its queue: a broker that came back empty has lost it.
                log.debug("the results queue of group %s is missing", group)
                try:
                    await self._ask("GET", f"/v2/taskgroup/{group}")
                except MusterError as why:
                    log.debug("and cannot be made now: %s", why)
                self._poll.soon()
                await self._pause(PAUSES_S[min(failures, len(PAUSES_S) - 1)])

    async def _take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if len(delivery.body) > LARGE_BYTES:
                unknown = await aside(self._settle, delivery)
            else:
                unknown = self._settle(delivery)
            # Another process may read the same group: it gets its chance, once, before the message is dropped.
            if unknown and not delivery.redelivered:
                delivery.requeue()
            else:
                delivery.ack()

    def _settle(self, delivery: Delivery) -> int:
        """How many results in it nobody here waits for."""
        unknown = 0
        for item in items_of(delivery.body, delivery.content_type):
            future = self.pending.pop(item.task, None)
            if future is None:
                unknown += 1
            else:
                resolve(future, item, self._serializer)
        return unknown

    async def _queue(self) -> ResultQueue:
        queue: ResultQueue = await self._ask("GET", "/v2/get_amqp_result_connection_url", ResultQueue)
        return queue

    async def _url(self) -> str:
        """Fresh credentials for every connection. What was published while there was none may have been lost."""
        self._poll.soon()
        url = (await self._queue()).connection_url
        return url if self._amqp_port is None else with_port(url, self._amqp_port)

    async def _ask(self, method: str, path: str, answer: Any = None) -> Any:
        return await aside(self._call, method, path, answer)

    def _call(self, method: str, path: str, answer: Any) -> Any:
        try:
            return self._rest.call(method, path, None, answer)
        finally:
            self._rest.close()  # the connection belongs to this errand's thread

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._unused.wait(), seconds)
        except TimeoutError:
            return


def with_port(url: str, port: int) -> str:
    """The same address on another port."""
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return parts._replace(netloc=f"{credentials}{at}{name}:{port}").geturl()
