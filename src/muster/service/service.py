"""The service: composes its nouns, and starts and stops what runs in the background."""

from __future__ import annotations

import secrets

from starlette.routing import Route

from muster.service import app
from muster.service.chores import Chores
from muster.service.credentials import BrokerGate, Credentials
from muster.service.desk import Authenticate, Desk, Registry
from muster.service.doorman import Doorman
from muster.service.endings import Endings
from muster.service.endpoints import Endpoints
from muster.service.functions import Functions
from muster.service.groups import Groups
from muster.service.heartbeats import Heartbeats
from muster.service.launches import Launches
from muster.service.notices import Notices
from muster.service.orders import Orders
from muster.service.outbox import Outbox
from muster.service.presence import Presence
from muster.service.rebuild import Rebuild
from muster.service.results import Results
from muster.service.settings import Settings
from muster.service.submit import Submit
from muster.service.sweep import Sweep
from muster.service.tasks import Tasks
from muster.service.watch import Watch
from muster.store.contract import Store
from muster.transport.contract import Transport


class Service:
    """`open`, let the broker listen, `start`; then serve `routes()`; `stop` at the end."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        broker_gate: BrokerGate,
        authenticate: Authenticate,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.store = store
        self.broker_secret = ""
        self._chores = chores = Chores()
        registry, presence = Registry(store), Presence()
        groups = Groups(store, transport)
        notices = Notices(transport, groups)
        endings = Endings(store, notices)
        credentials = Credentials(store, broker_gate, settings, chores)
        orders = Orders(store, transport, credentials)
        self.desk = desk = Desk(store, registry, authenticate)
        self.functions = Functions(store, settings.function_cache_bytes)
        outbox = Outbox(store, transport, self.functions, endings, chores)
        launches = Launches(store, transport, registry, orders, outbox, endings, credentials, settings, chores)
        self.endpoints = Endpoints(
            store, transport, desk, registry, credentials, presence, launches, outbox, endings, settings
        )
        self.submit = Submit(store, desk, self.functions, groups, launches, outbox, settings)
        self.tasks = Tasks(store, transport, groups, credentials, launches, outbox)
        self._results = Results(store, transport, notices, launches)
        self._heartbeats = Heartbeats(store, transport, registry, presence, launches, outbox)
        self._watch = Watch(store, transport, registry, presence, launches, outbox, endings, settings)
        self._sweep = Sweep(store, transport, groups, outbox, endings, settings)
        self._rebuild = Rebuild(store, transport, groups, notices, outbox, credentials, settings)
        self.broker_doorman = Doorman(store, secrets.token_hex(16))

    def routes(self) -> list[Route]:
        return app.routes(self)

    async def open(self) -> None:
        """Everything that the store knows of is on the broker; only then may anybody connect to it."""
        secret = await self.store.setting("broker.secret", secrets.token_hex(16).encode())
        self.broker_secret = secret.decode()
        self.broker_doorman = Doorman(self.store, self.broker_secret)
        await self._rebuild.run()

    async def start(self) -> None:
        """Read results and heartbeats, and keep an eye on what is owed."""
        self._chores.start(self._results.run(), "results")
        self._chores.start(self._heartbeats.run(), "heartbeats")
        self._chores.every(self.settings.watch_s, self._watch.look, "watch")
        self._chores.every(self.settings.sweep_s, self._sweep.round, "sweep")

    async def stop(self) -> None:
        """What is unfinished is in the store; the next start takes it up."""
        await self._chores.close()
