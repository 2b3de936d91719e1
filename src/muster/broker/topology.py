"""Everything the broker holds: exchanges, queues, and how much they weigh."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from muster.broker import faults
from muster.broker.exchange import KINDS, Exchange
from muster.broker.message import Message, Promise
from muster.broker.queue import Queue

_ROUTES_KEPT = 16_384
_SHARE = 0.5  # of the limit: beyond this, the service feeds thin queues only
_THIN_BYTES = 1024 * 1024
_RELIEF = 0.8  # of the limit: below this, publishers may go on


class Topology:
    """One virtual host. `full` says whether the memory for messages is used up."""

    def __init__(self, memory_bytes: int, queue_bytes: int | None = None) -> None:
        self.exchanges = {
            name: Exchange(name, kind) for name, kind in (("amq.direct", "direct"), ("amq.topic", "topic"))
        }
        self.queues: dict[str, Queue] = {}
        self.held_bytes = 0
        self.full = False
        self.pressure_changed: set[Callable[[bool], None]] = set()
        self._limit_bytes = memory_bytes
        self._queue_bytes = queue_bytes if queue_bytes is not None else memory_bytes // 4
        self._routes: dict[tuple[str, str], tuple[Queue, ...]] = {}

    def queue(self, name: str) -> Queue:
        found = self.queues.get(name)
        if found is None:
            raise faults.no_queue(name)
        return found

    def exchange(self, name: str) -> Exchange:
        found = self.exchanges.get(name)
        if found is None:
            raise faults.no_exchange(name)
        return found

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool = True, auto_delete: bool = False, internal: bool = False
    ) -> None:
        """503 for a kind we do not have, 406 when it exists and is different."""
        if kind not in KINDS:
            raise faults.ConnectionFault(503, f"COMMAND_INVALID - unknown exchange type '{kind}'")
        found = self.exchanges.get(name)
        if found is None:
            self.exchanges[name] = Exchange(name, kind, durable=durable, auto_delete=auto_delete, internal=internal)
            self._routes.clear()
            return
        wanted = {"type": kind, "durable": durable, "auto_delete": auto_delete, "internal": internal}
        there = {
            "type": found.kind,
            "durable": found.durable,
            "auto_delete": found.auto_delete,
            "internal": found.internal,
        }
        _same("exchange", name, wanted, there)

    def declare_queue(
        self,
        name: str,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        owner: object | None = None,
        confirm_on_ack: bool | None = None,
    ) -> bool:
        """True when it was created just now; 406 when it exists and is different."""
        found = self.queues.get(name)
        if found is None:
            self.queues[name] = Queue(
                name,
                self._release,
                durable=durable,
                auto_delete=auto_delete,
                owner=owner,
                confirm_on_ack=bool(confirm_on_ack),
            )
            self._routes.clear()
            return True
        wanted = {"durable": durable, "exclusive": owner is not None, "auto_delete": auto_delete}
        there = {"durable": found.durable, "exclusive": found.owner is not None, "auto_delete": found.auto_delete}
        _same("queue", name, wanted, there)
        if confirm_on_ack is not None:
            found.confirm_on_ack = confirm_on_ack
        return False

    def delete_exchange(self, name: str) -> None:
        self.exchanges.pop(name, None)
        self._routes.clear()

    def delete_queue(self, queue: Queue) -> int:
        """Gone with what it held; its readers are told. How many messages were ready."""
        if self.queues.get(queue.name) is not queue:
            return 0
        del self.queues[queue.name]
        self._routes.clear()
        for exchange in list(self.exchanges.values()):
            if exchange.forget(queue.name):
                self._drop_if_unused(exchange)
        thrown = len(queue.ready)
        queue.end()
        consumers = list(queue.consumers)
        queue.consumers.clear()
        for consumer in consumers:
            consumer.queue_gone()
        return thrown

    def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self.exchange(exchange).bind(self.queue(queue).name, routing_key)
        self._routes.clear()

    def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        found = self.exchange(exchange)
        found.unbind(queue, routing_key)
        self._routes.clear()
        self._drop_if_unused(found)

    def _drop_if_unused(self, exchange: Exchange) -> None:
        if exchange.auto_delete and not exchange.bindings:
            self.delete_exchange(exchange.name)

    def route(self, exchange: str, routing_key: str) -> tuple[Queue, ...]:
        """The queues a message goes to; 404 when there is no such exchange."""
        key = (exchange, routing_key)
        known = self._routes.get(key)
        if known is not None:
            return known
        if exchange:
            names: set[str] = self.exchange(exchange).route(routing_key)
        else:
            names = {routing_key}
        found = tuple(self.queues[name] for name in names if name in self.queues)
        if len(self._routes) >= _ROUTES_KEPT:
            self._routes.clear()
        self._routes[key] = found
        return found

    def post(self, message: Message, queues: tuple[Queue, ...], confirmed: Callable[[bool], None] | None) -> bool:
        """Put it into the queues. False: `confirmed` is called later, when its readers have kept it."""
        keepers = sum(queue.confirm_on_ack for queue in queues)
        if keepers and confirmed is not None:
            message.promise = Promise(keepers, confirmed)
        message.queued = len(queues)
        self.held_bytes += message.size
        if self.held_bytes > self._limit_bytes and not self.full:
            self._tell(full=True)
        for queue in queues:
            queue.put(message)
        for queue in queues:
            queue.pump()
        return message.promise is None

    def has_room(self, queue: Queue) -> bool:
        """Whether the service should put more there. It has all of it in the store, too; what endpoints send has no
        other place, so that memory must stay free for it, however many queues nobody reads.
        """
        return queue.held_bytes < (self._queue_bytes if self.held_bytes < self._limit_bytes * _SHARE else _THIN_BYTES)

    def _release(self, message: Message) -> None:
        message.queued -= 1
        if message.queued:
            return
        self.held_bytes -= message.size
        if self.full and self.held_bytes < self._limit_bytes * _RELIEF:
            self._tell(full=False)

    def _tell(self, *, full: bool) -> None:
        self.full = full
        for changed in list(self.pressure_changed):
            changed(full)


def _same(what: str, name: str, wanted: Mapping[str, object], there: Mapping[str, object]) -> None:
    for key, value in wanted.items():
        if there[key] != value:
            received, current = (str(v).lower() if isinstance(v, bool) else v for v in (value, there[key]))
            raise faults.precondition(
                f"inequivalent arg '{key}' for {what} '{name}' in vhost '/':"
                f" received '{received}' but current is '{current}'"
            )
