"""Launches: brings user endpoints up, says the order again until one checks in, and ends its tasks when none will.

One attempt per user endpoint at a time. Its end is either READY (the outbox opens) or an error that the waiting tasks
and the waiting POST both get.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from uuid import UUID

from muster.errors import EndpointOffline, MusterError, NoSuchQueue, Outage, StartFailed, Unmapped
from muster.model.endpoint import Endpoint, UserEndpoint
from muster.model.launch import Launch, LaunchState
from muster.service import queues
from muster.service.chores import Chores
from muster.service.credentials import Credentials
from muster.service.desk import Registry
from muster.service.endings import Endings
from muster.service.orders import Orders
from muster.service.outbox import Outbox
from muster.service.settings import Settings
from muster.store.contract import Store
from muster.transport.contract import Transport
from muster.wire import topology

log = logging.getLogger(__name__)

_ADDED = "Ask the endpoint's administrator to add you."
# An official user endpoint that was killed leaves a file behind, and no successor starts until that is old enough.
_PASSES = "Another instance of this endpoint is running"
_TICK_S = 1.0  # how soon a manager that came back is noticed
_READER_FRESH_S = 1.0  # so long one look at the queue's consumers is believed
_REMIND_S = 10.0  # well inside the 30 s in which an official manager revives


@dataclass(slots=True)
class Attempt:
    """One launch under way. `done` resolves to None (it is up) or to the reason it is not."""

    user_endpoint: UserEndpoint
    launch: Launch
    done: asyncio.Future[MusterError | None]
    news: asyncio.Event = field(default_factory=asyncio.Event)
    life_s: float = field(default_factory=time.monotonic)  # last sign of life
    ordered_s: float = float("-inf")
    manager_away: bool = False
    said: str = ""  # what it was told that will pass by itself


class Launches:
    """The attempts under way, and how often each user endpoint died young of late."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        registry: Registry,
        orders: Orders,
        outbox: Outbox,
        endings: Endings,
        credentials: Credentials,
        settings: Settings,
        chores: Chores,
    ) -> None:
        self._store = store
        self._transport = transport
        self._registry = registry
        self._orders = orders
        self._outbox = outbox
        self._endings = endings
        self._credentials = credentials
        self._settings = settings
        self._chores = chores
        self._attempts: dict[UUID, Attempt] = {}
        self._quick: dict[UUID, int] = {}
        self._ready_s: dict[UUID, float] = {}
        self._stopping: set[UUID] = set()  # said goodbye, but may still be connected
        self._reader_s: dict[UUID, float] = {}
        self._reminded_s: dict[UUID, float] = {}

    async def reach(self, user_endpoint: UserEndpoint, manager: Endpoint) -> Attempt | None:
        """Fresh tasks wait for it: None when it is up, else the attempt that brings it up."""
        id_ = user_endpoint.id
        attempt = self._attempts.get(id_)
        if attempt is not None:
            return attempt
        if id_ in self._stopping or not await self._connected(id_):
            return self.want(user_endpoint)
        if not self._outbox.is_open(id_):
            self._outbox.open(id_, bundles=user_endpoint.bundles)
        self._remind(user_endpoint, manager)
        return None

    async def _connected(self, id_: UUID) -> bool:
        now = time.monotonic()
        if self._outbox.is_open(id_) and now - self._reader_s.get(id_, float("-inf")) < _READER_FRESH_S:
            return True
        if await self._has_reader(id_):
            self._reader_s[id_] = now
            return True
        return False

    def _remind(self, user_endpoint: UserEndpoint, manager: Endpoint) -> None:
        """Official managers revive a user endpoint that exits shortly after an order: one goes with fresh tasks."""
        now = time.monotonic()
        if manager.bundles or now - self._reminded_s.get(user_endpoint.id, float("-inf")) < _REMIND_S:
            return
        self._reminded_s[user_endpoint.id] = now
        self._chores.start(self._order(manager, user_endpoint), f"reminder for {user_endpoint.id}")

    def want(self, user_endpoint: UserEndpoint) -> Attempt:
        """Bring it up; the attempt under way, if there is one."""
        attempt = self._attempts.get(user_endpoint.id)
        if attempt is None:
            launch = Launch(user_endpoint.id, requested_at_s=time.time(), failures=self._quick.get(user_endpoint.id, 0))
            attempt = Attempt(user_endpoint, launch, asyncio.get_running_loop().create_future())
            self._attempts[user_endpoint.id] = attempt
            self._outbox.hold(user_endpoint.id)
            self._chores.start(self._run(attempt), f"launch {user_endpoint.id}")
        return attempt

    def underway(self, id_: UUID) -> Attempt | None:
        return self._attempts.get(id_)

    def checked_in(self, id_: UUID, *, bundles: bool) -> None:
        """It reads its queue from now on."""
        self._stopping.discard(id_)
        attempt = self._attempts.pop(id_, None)
        if attempt is not None:
            attempt.launch = attempt.launch.to(LaunchState.READY)
            self._ready_s[id_] = time.monotonic()
            attempt.news.set()
            attempt.done.set_result(None)
            log.info("user endpoint %s is up after %.2f s", id_, time.time() - attempt.launch.requested_at_s)
        self._outbox.open(id_, bundles=bundles)

    def progressed(self, id_: UUID) -> None:
        """A result came: whatever it died of before, it works."""
        self._quick.pop(id_, None)

    async def refused(self, id_: UUID, error: MusterError) -> None:
        """The site said no, or it could not start: its tasks end with that."""
        attempt = self._attempts.get(id_)
        if _PASSES in error.message():
            log.info("%s cannot start yet, it is ordered again: %s", id_, error.message())
            if attempt is not None:
                attempt.said = _PASSES
        elif attempt is not None:
            await self._fail(attempt, error, LaunchState.REFUSED)
        elif not await self._has_reader(id_):
            await self._end_tasks(id_, error)

    async def exited(self, id_: UUID, *, quick: bool, why: str) -> None:
        """Its process is gone. Tasks that remain get another one, unless it keeps dying young."""
        user_endpoint = await self._store.user_endpoint(id_)
        if user_endpoint is None:
            return
        quick = quick or time.monotonic() - self._ready_s.get(id_, float("-inf")) < self._settings.quick_s
        if quick:
            self._quick[id_] = self._quick.get(id_, 0) + 1
        else:
            self._quick.pop(id_, None)
        self._ready_s.pop(id_, None)
        self._reader_s.pop(id_, None)
        self._stopping.add(id_)
        self._outbox.hold(id_)
        if self._quick.get(id_, 0) >= self._settings.quick_failures:
            del self._quick[id_]
            times = self._settings.quick_failures
            await self.refused(id_, StartFailed(why=f"it ended {times} times in a row right after it started: {why}"))
        elif await self._store.unfinished(id_, None, 1):
            attempt = self.want(user_endpoint)
            attempt.life_s, attempt.ordered_s = time.monotonic(), float("-inf")
            attempt.news.set()
        else:
            self._chores.start(self._retire(id_), f"retire {id_}")

    async def _retire(self, id_: UUID) -> None:
        """It stays down: its credentials and its queue go. Not at once, for it may just be finishing."""
        await asyncio.sleep(self._settings.revoke_delay_s)
        if self.underway(id_) or self._outbox.is_open(id_) or await self._has_reader(id_):
            return
        await self._credentials.revoke(id_)
        if not await self._store.unfinished(id_, None, 1):
            await self._forget_queue(id_)

    async def _run(self, attempt: Attempt) -> None:
        id_ = attempt.user_endpoint.id
        try:
            await self._transport.declare(queues.tasks(id_))
            await self._bring_up(attempt)
        except MusterError as error:
            await self._fail(attempt, error, LaunchState.FAILED)
        except Exception as error:  # the edge of an attempt: whoever waits must hear of our own mistake too
            log.exception("launch of %s failed", id_)
            await self._fail(attempt, MusterError(str(error)), LaunchState.FAILED)

    async def _bring_up(self, attempt: Attempt) -> None:
        key = attempt.user_endpoint.key
        away_since: float | None = None
        while not attempt.done.done():
            manager = await self._registry.find(key.endpoint)
            if manager is None:
                raise EndpointOffline(why="it was deleted")
            now = time.monotonic()
            # the check-in decides; its heartbeat can be lost, so a reader that stays counts as well
            if now - attempt.ordered_s >= self._settings.repeat_s and await self._stays(attempt):
                self.checked_in(key.id, bundles=attempt.user_endpoint.bundles)
                return
            if await self._reads(topology.commands_queue(manager.id)):
                away_since, attempt.manager_away = None, False
                await self._push(attempt, manager, now)
            else:
                attempt.manager_away = True
                attempt.life_s = now
                away_since = away_since or now
                if now - away_since >= self._settings.offline_grace_s:
                    raise EndpointOffline(why=f"its manager {manager.id} is not connected")
            await self._news(attempt)

    async def _stays(self, attempt: Attempt) -> bool:
        return attempt.ordered_s > float("-inf") and await self._has_reader(attempt.user_endpoint.id)

    async def _push(self, attempt: Attempt, manager: Endpoint, now: float) -> None:
        """Order it, again if need be; give up when nothing was heard for too long."""
        silent_s = now - attempt.life_s
        if silent_s >= self._settings.check_in_timeout_s:
            last = f"; the last it said: {attempt.said}" if attempt.said else ""
            raise StartFailed(why=f"it did not check in within {silent_s:.0f} seconds{last}")
        if now - attempt.ordered_s >= self._settings.repeat_s:
            attempt.ordered_s = now
            try:
                await self._order(manager, attempt.user_endpoint)
            except (Outage, NoSuchQueue) as why:
                log.warning("the order for %s could not be sent, again soon: %s", attempt.user_endpoint.id, why)

    async def _order(self, manager: Endpoint, user_endpoint: UserEndpoint) -> None:
        # the row may have changed since: another client's user_runtime, a new seal key
        await self._orders.send(manager, await self._store.user_endpoint(user_endpoint.id) or user_endpoint)

    async def _news(self, attempt: Attempt) -> None:
        wait_s = min(_TICK_S, self._settings.repeat_s, self._settings.check_in_timeout_s)
        try:
            await asyncio.wait_for(attempt.news.wait(), wait_s)
        except TimeoutError:
            return
        attempt.news.clear()

    async def _fail(self, attempt: Attempt, error: MusterError, state: LaunchState) -> None:
        id_ = attempt.user_endpoint.id
        if self._attempts.get(id_) is not attempt:
            return
        attempt.launch = attempt.launch.to(state, error.message())
        # First the queue, then the attempt, then the tasks: one submitted meanwhile starts an attempt of its own.
        await self._forget_queue(id_)
        self._attempts.pop(id_, None)
        attempt.news.set()
        await self._end_tasks(id_, error)
        if not attempt.done.done():
            attempt.done.set_result(error)
        self._chores.start(self._retire(id_), f"retire {id_}")

    async def _end_tasks(self, id_: UUID, error: MusterError) -> None:
        self._outbox.drop(id_, await self._endings.end_all(id_, error))

    async def _forget_queue(self, id_: UUID) -> None:
        """What the broker still holds for it has ended: a later user endpoint must not run it."""
        try:
            await self._transport.delete(topology.tasks_queue(id_))
        except Outage as why:
            log.warning("the queue of %s stays for now: %s", id_, why)

    async def _has_reader(self, id_: UUID) -> bool:
        return await self._reads(topology.tasks_queue(id_))

    async def _reads(self, queue: str) -> bool:
        try:
            state = await self._transport.state(queue)
        except Outage:
            return False
        return state is not None and state.consumers > 0


def start_error(code: str, why: str) -> MusterError:
    """What a manager told us about a start, as an error of ours."""
    if code == Unmapped.code:
        return Unmapped.told(f"{why} {_ADDED}") if why else Unmapped()
    return StartFailed(why=why or "the manager did not say why")
