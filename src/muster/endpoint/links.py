"""Where a user endpoint takes tasks from and sends results to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from muster.transport.contract import Outgoing
from muster.wire import bundle
from muster.wire.command import Payload, QueueInfo
from muster.wire.envelope import ResultMessage, StatusReport, encode
from muster.wire.rest import Registered

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Address:
    """An exchange and a routing key."""

    exchange: str
    routing_key: str

    @classmethod
    def of(cls, info: QueueInfo) -> Address:
        arguments = info.queue_publish_kwargs or {}
        return cls(str(arguments.get("exchange", info.exchange)), str(arguments.get("routing_key", info.queue)))


@dataclass(frozen=True, slots=True)
class Links:
    """`url` carries the credentials. `bundles`: the service reads bundles of results."""

    endpoint: UUID
    url: str | Callable[[], Awaitable[str]]
    tasks_queue: str
    results: Address
    heartbeats: Address
    bundles: bool = False
    allowed_functions: tuple[UUID, ...] | None = None

    @classmethod
    def of_payload(cls, payload: Payload) -> Links:
        credentials = payload.amqp_creds
        allowed = payload.allowed_functions
        return cls(
            endpoint=UUID(credentials.endpoint_id),
            url=credentials.task_queue_info.connection_url,
            tasks_queue=credentials.task_queue_info.queue,
            results=Address.of(credentials.result_queue_info),
            heartbeats=Address.of(credentials.heartbeat_queue_info),
            bundles=payload.bundles >= 1,
            allowed_functions=None if allowed is None else tuple(map(UUID, allowed)),
        )

    @classmethod
    def of_registration(cls, registered: Registered, url: Callable[[], Awaitable[str]]) -> Links:
        tasks, results = registered.task_queue_info, registered.result_queue_info
        if tasks is None or results is None:
            raise ValueError("the service registered a manager, not an endpoint that runs tasks")
        allowed = registered.allowed_functions
        return cls(
            endpoint=UUID(registered.endpoint_id),
            url=url,
            tasks_queue=tasks.queue,
            results=Address.of(results),
            heartbeats=Address.of(registered.heartbeat_queue_info),
            bundles=registered.bundles >= 1,
            allowed_functions=None if allowed is None else tuple(map(UUID, allowed)),
        )

    def bundle(self, body: bytes) -> Outgoing:
        return Outgoing(self.results.exchange, self.results.routing_key, body, bundle.RESULTS)

    def result(self, message: ResultMessage) -> Outgoing:
        return Outgoing(self.results.exchange, self.results.routing_key, encode(message), _JSON, "utf-8")

    def report(self, state: dict[str, object]) -> Outgoing:
        report = StatusReport(endpoint_id=str(self.endpoint), global_state=state)
        return Outgoing(self.heartbeats.exchange, self.heartbeats.routing_key, encode(report), _JSON, "utf-8")
