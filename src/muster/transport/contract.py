"""The seam: what the rest of Muster may ask of a broker.

Implementations: `muster.transport.amqp` (pika; RabbitMQ or ours over TCP) and `muster.transport.local` (the embedded
broker, in process). Both pass tests/contract/test_transport.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. Persistent and mandatory, always: what matters must not vanish."""

    exchange: str
    routing_key: str
    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    timestamp_s: int | None = None


class Delivery(Protocol):
    """A message that arrived. It stays ours until acknowledged; acknowledging is cheap and is flushed in batches."""

    body: bytes
    exchange: str
    routing_key: str
    redelivered: bool
    content_type: str | None
    headers: Mapping[str, Any]
    timestamp_s: int | None

    def ack(self) -> None:
        """Done with it, for good."""

    def requeue(self) -> None:
        """Give it back for somebody else."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """How full it is, and who listens."""

    messages: int  # ready, not counting unacknowledged ones
    consumers: int


@dataclass(frozen=True, slots=True)
class Binding:
    """What a queue listens to."""

    exchange: str  # "" is the default exchange: nothing to bind
    kind: str = "direct"  # or "topic"
    routing_key: str = ""


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A durable queue and where it listens. `confirm_on_ack`: the embedded broker promises to keep a message only
    when its reader acknowledged it, that is, when the store has it (RabbitMQ keeps messages itself).
    `held_s`: how long a reader may hold a message unacknowledged; the embedded broker never takes one back.
    """

    name: str
    bindings: Sequence[Binding] = field(default_factory=tuple)
    confirm_on_ack: bool = False
    held_s: int | None = None


class Transport(Protocol):
    """One party's connection. Lost connections come back by themselves; CredentialsRefused is terminal."""

    async def declare(self, queue: QueueSpec) -> bool:
        """Make sure it exists with its exchanges and bindings; True when it was created just now."""

    async def delete(self, queue: str) -> None:
        """Gone, with what it held; no error when it was gone already."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Return once the broker has promised to keep all of them (pipelined). NoSuchQueue when one reached no
        queue; Outage when the broker cannot be reached within the transport's patience.
        """

    def consume(
        self, queue: str, *, ahead: int = 0, ahead_bytes: int = 0, exclusive: bool = False
    ) -> AsyncGenerator[list[Delivery], None]:
        """What arrives, in lists of whatever queued up meanwhile; survives reconnects. `ahead` bounds how many are
        unacknowledged, `ahead_bytes` their bodies together, give or take a message (0: no bound). Ends when the
        transport closes; NoSuchQueue when there is no such queue, Conflict when somebody else reads it exclusively.
        Ending the iteration gives back what nobody has seen; what was handed out can still be acknowledged, until the
        transport closes.
        """

    async def state(self, queue: str) -> QueueState | None:
        """None when there is no such queue."""

    async def close(self) -> None:
        """Flush acknowledgements and go; unacknowledged messages return to their queues."""
