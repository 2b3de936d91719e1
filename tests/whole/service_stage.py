"""A service as `muster serve` composes it, in this process, and a small endpoint that speaks to it over AMQP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx2

from muster.broker.limits import Limits
from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.cli.gates import EmbeddedGate
from muster.identity import Authority, People
from muster.model.identity import Identity
from muster.service import Service, Settings
from muster.service.app import application
from muster.service.credentials import authoriser
from muster.store import open_store
from muster.store.contract import Store
from muster.transport.amqp import AmqpTransport
from muster.transport.contract import Delivery, Outgoing
from muster.wire import bundle, topology
from muster.wire.command import decode_command, decode_payload
from muster.wire.envelope import ResultMessage, StatusReport, TaskMessage, TaskStatus, decode, encode
from muster.wire.rest import AUTH_SERVER, COMPUTE_SCOPE

T = TypeVar("T")
ARGUMENTS = "12\n00\ngAQpLg==\n12\n00\ngAR9lC4=\n"
CODE = "8\n01\ngASV.\n"
QUICK = Settings(
    repeat_s=0.3,
    check_in_timeout_s=5,
    offline_grace_s=0.6,
    single_offline_grace_s=0.6,
    submit_wait_s=5,
    revoke_delay_s=0.1,
    watch_s=0.2,
    lock_s=30,
)


async def soon(fact: Callable[[], Awaitable[T]], *, within_s: float = 10) -> T:
    """The first true answer; waits for something, never for a while."""
    async with asyncio.timeout(within_s):
        while not (answer := await fact()):  # noqa: ASYNC110  # it lives behind REST and has no event
            await asyncio.sleep(0.02)
        return answer


@dataclass
class Person:
    """Somebody with a token, and a client that sends it."""

    identity: Identity
    token: str
    web: httpx2.AsyncClient

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await self.web.request(method, path, json=body, headers=self.headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def register_function(self, **more: Any) -> str:
        asked = {"function_name": "hello", "function_code": CODE, **more}
        return str((await self.call("POST", "/v3/functions", asked))["function_uuid"])

    async def register(self, id_: str | None = None, *, ours: str | None = None, **more: Any) -> dict[str, Any]:
        """An endpoint; `ours`: "manager" or "single", otherwise an official manager."""
        asked = {"endpoint_name": "cluster", "metadata": {"hostname": "login1"}, **more}
        if ours is not None:
            seal = {"new_seal_key": True} if ours == "manager" else {}
            asked["muster"] = {"version": "0.1.0", "kind": ours, "bundles": 1, **seal}
        answer = await self.call("PUT" if id_ else "POST", f"/v3/endpoints/{id_}" if id_ else "/v3/endpoints", asked)
        assert isinstance(answer, dict)
        return answer

    async def submit(self, endpoint: str, function: str, *, status: int = 200, **more: Any) -> Any:
        asked = {"tasks": {function: [ARGUMENTS]}, "create_queue": True, **more}
        return await self.call("POST", f"/v3/endpoints/{endpoint}/submit", asked, status)

    async def done(self, task: str) -> Any:
        """The document of the task once it is finished."""

        async def finished() -> Any:
            document = await self.call("GET", f"/v2/tasks/{task}")
            return document if "completion_t" in document else None

        return await soon(finished)


@dataclass
class Stage:
    """Everything that is up."""

    store: Store
    broker: Broker
    service: Service
    web: httpx2.AsyncClient
    people: People
    everyone: dict[str, Person] = field(default_factory=dict)

    async def person(self, name: str, domain: str = "example.org") -> Person:
        username = f"{name}@{domain}"
        if username not in self.everyone:
            identity = await self.people.add(username, name=name)
            self.everyone[username] = Person(identity, await self.token(username, COMPUTE_SCOPE), self.web)
        return self.everyone[username]

    async def token(self, username: str, scope: str) -> str:
        client = await self.people.add_client(f"client of {username}", username)
        answer = await self.web.post(
            "/v2/oauth2/token",
            data={"grant_type": "client_credentials", "scope": scope},
            auth=(str(client.client_id), client.client_secret),
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@asynccontextmanager
async def serving(data: Path, settings: Settings = QUICK, limits: Limits | None = None) -> AsyncIterator[Stage]:
    """Composed in the order of `muster serve`; requests go straight to the application."""
    async with AsyncExitStack() as stack:
        store = await open_store(f"sqlite:///{data}/muster.db?synchronous=NORMAL")
        stack.push_async_callback(store.close)
        authority = Authority(store, "http://localhost:5000")
        await authority.open()
        broker = Broker(authoriser(store), limits=limits)
        gate = EmbeddedGate(broker, "")
        transport = LocalTransport(broker)
        stack.push_async_callback(transport.close)
        stack.push_async_callback(broker.stop)
        service = Service(store, transport, gate, authority.authenticate, settings)
        stack.push_async_callback(service.stop)
        await service.open()
        host, port = await broker.start("127.0.0.1", 0)
        gate.place = f"amqp://{host}:{port}/%2F"
        await service.start()
        app = application([*authority.routes(), *service.routes()])
        web = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost:5000")
        stack.push_async_callback(web.aclose)
        yield Stage(store, broker, service, web, People(store))


@dataclass
class Site:
    """A manager and the user endpoints it started, as far as the service can see: credentials and messages."""

    transport: AmqpTransport
    id: UUID
    orders: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)

    async def beat(self, **state: Any) -> None:
        await report(self.transport, self.id, {"heartbeat_period": 30, **state})

    async def read_orders(self) -> None:
        async for deliveries in self.transport.consume(topology.commands_queue(self.id)):
            for delivery in deliveries:
                await self.orders.put(delivery)
                delivery.ack()

    async def next_order(self) -> Delivery:
        async with asyncio.timeout(10):
            return await self.orders.get()


@asynccontextmanager
async def manager(registered: dict[str, Any]) -> AsyncIterator[Site]:
    url = registered["command_queue_info"]["connection_url"]
    transport = AmqpTransport(url, label="manager")
    await transport.open()
    site = Site(transport, UUID(registered["endpoint_id"]))
    reading = asyncio.create_task(site.read_orders())
    try:
        yield site
    finally:
        reading.cancel()
        await transport.close()
        await asyncio.gather(reading, return_exceptions=True)


def credentials_in(delivery: Delivery) -> dict[str, Any]:
    """`amqp_creds` of an order, sealed or not."""
    command = decode_command(delivery.body)
    payload = decode_payload(command.sealed.payload) if command.sealed else command.kwargs
    assert payload is not None
    credentials = payload.amqp_creds
    return {"id": UUID(credentials.endpoint_id), "url": credentials.task_queue_info.connection_url}


def official_credentials_in(delivery: Delivery) -> dict[str, Any]:
    credentials = json.loads(delivery.body)["kwargs"]["amqp_creds"]
    return {"id": UUID(credentials["endpoint_id"]), "url": credentials["task_queue_info"]["connection_url"]}


async def report(transport: AmqpTransport, who: UUID, state: dict[str, Any]) -> None:
    body = encode(StatusReport(endpoint_id=str(who), global_state=state))
    await transport.publish([Outgoing(topology.HEARTBEATS, topology.heartbeats_key(who), body)])


@dataclass
class Runner:
    """Something that runs tasks; `work` makes of a task id what comes back."""

    transport: AmqpTransport
    id: UUID
    bundles: bool
    seen: list[UUID] = field(default_factory=list)
    bodies: list[Delivery] = field(default_factory=list)
    answering: bool = True

    async def check_in(self, **state: Any) -> None:
        more = {"bundles": 1} if self.bundles else {}
        await report(self.transport, self.id, {"heartbeat_period": 5.0, "active": True, **more, **state})

    async def run(self) -> None:
        async for deliveries in self.transport.consume(topology.tasks_queue(self.id), exclusive=True):
            for delivery in deliveries:
                await self._take(delivery)

    async def _take(self, delivery: Delivery) -> None:
        self.bodies.append(delivery)
        if delivery.content_type == bundle.TASKS:
            ids = [UUID(bytes=item.task) for item in bundle.decode_tasks(delivery.body).items]
        else:
            message = decode(delivery.body)
            assert isinstance(message, TaskMessage)
            ids = [UUID(message.task_id)]
        self.seen += ids
        if self.answering:
            await self.answer(ids)
            delivery.ack()

    async def answer(self, ids: list[UUID], **more: Any) -> None:
        key = topology.results_key(self.id)
        if self.bundles:
            items = [bundle.ResultItem(id_.bytes, f"00\n{id_}", details='{"os":"test"}') for id_ in ids]
            body = bundle.encode_results(items)
            await self.transport.publish([Outgoing(topology.RESULTS, key, body, content_type=bundle.RESULTS)])
            return
        messages = [Outgoing(topology.RESULTS, key, encode(official_result(id_, **more))) for id_ in ids]
        await self.transport.publish(messages)


def official_result(id_: UUID, **more: Any) -> ResultMessage:
    return ResultMessage(
        task_id=str(id_),
        data=more.pop("data", f"00\n{id_}"),
        details={"os": "test", "python_version": "3.11.2"},
        task_statuses=[TaskStatus(timestamp=1_795_327_468_195_137_493, state="execution-start")],
        **more,
    )


@asynccontextmanager
async def runner(url: str, id_: UUID, *, bundles: bool, answering: bool = True) -> AsyncIterator[Runner]:
    transport = AmqpTransport(url, label="runner")
    await transport.open()
    one = Runner(transport, id_, bundles, answering=answering)
    running = asyncio.create_task(one.run())
    await one.check_in()
    try:
        yield one
    finally:
        running.cancel()
        await transport.close()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def waiting(person: Person, group: str) -> AsyncIterator[asyncio.Queue[Delivery]]:
    """What arrives on the queue of the group, read with the person's own credentials."""
    where = await person.call("GET", "/v2/get_amqp_result_connection_url")
    transport = AmqpTransport(where["connection_url"], label="reader")
    await transport.open()
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    async def read() -> None:
        async for deliveries in transport.consume(where["queue_prefix"] + group):
            for delivery in deliveries:
                arrived.put_nowait(delivery)
                delivery.ack()

    reading = asyncio.create_task(read())
    try:
        yield arrived
    finally:
        reading.cancel()
        await transport.close()
        await asyncio.gather(reading, return_exceptions=True)


async def next_of(queue: asyncio.Queue[Delivery]) -> Delivery:
    async with asyncio.timeout(10):
        return await queue.get()


def new_group() -> str:
    return str(uuid4())


WRONG_SERVER = AUTH_SERVER
