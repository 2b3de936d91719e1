"""Hosting: store, broker, identity and service on one event loop.

Started by `muster serve`, as the service's own unprivileged account. Must never hold a right on a site.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, contextmanager

import click
import uvicorn
import uvloop
from starlette.routing import Route

from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.cli.gates import EmbeddedGate, RabbitGate
from muster.cli.plan import Plan, authority, bind, port_refused, without_credentials
from muster.errors import MusterError
from muster.identity import Authority
from muster.service import Service, Settings
from muster.service.app import application
from muster.service.credentials import BrokerGate, authoriser
from muster.service.web import PatientProtocol
from muster.store import open_store
from muster.store.contract import Store
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Transport

log = logging.getLogger("muster.serve")

_GRACE_S = 3  # for requests under way when it stops


class Line(logging.Formatter):
    """One line a record, whatever is in it: what came from outside cannot forge a second one."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        return f"{at} {record.levelname.lower()} {record.name} {shown}"


class WebServer(uvicorn.Server):
    """Says when it takes requests; signals are Hosting's business."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Hosting:
    """One run of the service."""

    def __init__(self, plan: Plan, settings: Settings | None = None) -> None:
        self._plan = plan
        self._settings = settings or Settings()
        self._server: WebServer | None = None
        self._stopping = False

    def run(self) -> int:
        """Until a signal; the exit code."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Line())
        logging.basicConfig(level=os.environ.get("MUSTER_LOG_LEVEL", "INFO").upper(), handlers=[handler], force=True)
        for chatty in ("alembic", "uvicorn"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        try:
            with self._plan.claim_data(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._host())
        except MusterError as error:
            click.echo(f"Error: {error.message()}", err=True)
            if error.detail:
                click.echo(f"  {error.detail}", err=True)
            return 1
        return 0

    async def _host(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        async with AsyncExitStack() as stack:
            # in this order, so that at the end: requests, then background work, then the broker, then the store
            listening = stack.enter_context(bind(self._plan.host, self._plan.port, "--listen"))
            web = f"http://{authority(self._plan.host, listening.getsockname()[1])}"
            store = await open_store(self._plan.database)
            stack.push_async_callback(store.close)
            people = Authority(store, self._plan.public_url or web)
            await people.open()
            service, amqp = await self._with_broker(stack, store, people)
            ready = f"ready {self._plan.public_url or web} {amqp}"
            await self._serve([*people.routes(), *service.routes()], listening, ready, web)

    async def _with_broker(self, stack: AsyncExitStack, store: Store, people: Authority) -> tuple[Service, str]:
        if self._plan.amqp is not None:
            return await self._with_rabbit(stack, self._plan.amqp, store, people)
        broker = Broker(authoriser(store))
        place = f"amqp://{authority(self._plan.amqp_host, self._plan.amqp_port)}/%2F"
        gate = EmbeddedGate(broker, self._plan.amqp_public or place)
        transport = LocalTransport(broker)
        stack.push_async_callback(transport.close)
        stack.push_async_callback(broker.stop)
        service = self._service(store, transport, gate, people)
        stack.push_async_callback(service.stop)
        await service.open()
        try:
            host, port = await broker.start(self._plan.amqp_host, self._plan.amqp_port)
        except OSError as why:
            raise port_refused(self._plan.amqp_host, self._plan.amqp_port, "--amqp-listen", why) from None
        gate.place = self._plan.amqp_public or f"amqp://{authority(host, port)}/%2F"
        await service.start()
        return service, without_credentials(gate.place).removesuffix("/%2F")

    async def _with_rabbit(
        self, stack: AsyncExitStack, amqp: str, store: Store, people: Authority
    ) -> tuple[Service, str]:
        gate = RabbitGate(amqp, self._plan.amqp_public, self._plan.amqp_management)
        transport = AmqpTransport(amqp, label="service")
        await transport.open()
        stack.push_async_callback(transport.close)
        service = self._service(store, transport, gate, people)
        stack.push_async_callback(service.stop)
        await service.open()
        path = self._plan.data / "broker-secret"
        path.touch(mode=0o600)
        path.write_text(service.broker_secret + "\n")
        log.info("RabbitMQ's HTTP authorisation backend asks at /broker/SECRET/user and so on; SECRET is in %s", path)
        await service.start()
        return service, without_credentials(gate.place).removesuffix("/%2F")

    def _service(self, store: Store, transport: Transport, gate: BrokerGate, people: Authority) -> Service:
        return Service(store, transport, gate, people.authenticate, self._settings)

    async def _serve(self, routes: list[Route], listening: socket.socket, ready: str, web: str) -> None:
        config = uvicorn.Config(
            application(routes),
            loop="none",
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = WebServer(config, lambda: self._announce(ready, web))
        self._server.should_exit = self._stopping
        await self._server.serve([listening])

    def _announce(self, ready: str, web: str) -> None:
        path = self._plan.data / "service.json"
        path.write_text(json.dumps({"url": self._plan.public_url or web, "pid": os.getpid()}) + "\n")
        print(ready, flush=True)  # the promise of this command: one line, when it takes requests

    def _stop(self) -> None:
        if self._stopping:
            os._exit(130)  # asked twice: the store is good for it
        self._stopping = True
        log.info("stopping")
        if self._server is not None:
            self._server.should_exit = True
