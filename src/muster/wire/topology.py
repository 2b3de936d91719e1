"""Names of exchanges and queues. The service declares everything; the others only consume and publish."""

from __future__ import annotations

from uuid import UUID

from muster.wire.command import QueueInfo

COMMANDS = "commands"  # direct exchange
TASKS = "tasks"  # direct exchange
RESULTS = "results"  # topic exchange, and the one queue the service reads results from
HEARTBEATS = "heartbeats"  # topic exchange, and queue


def commands_queue(manager: UUID) -> str:
    return f"{manager}.commands"


def tasks_queue(endpoint: UUID) -> str:
    return f"{endpoint}.tasks"


def results_key(endpoint: UUID) -> str:
    return f"{endpoint}.results"


def heartbeats_key(endpoint: UUID) -> str:
    return f"{endpoint}.heartbeats"


def group_prefix(identity: UUID) -> str:
    """`queue_prefix` of an SDK: the group's id follows. One identity reads nothing of another's."""
    return f"tg.{identity}."


def group_queue(identity: UUID, group: UUID) -> str:
    return f"{group_prefix(identity)}{group}"


def sender(routing_key: str) -> UUID | None:
    """Which endpoint a results or heartbeats routing key belongs to; the broker lets nobody use another's."""
    head, _, _ = routing_key.partition(".")
    try:
        return UUID(head)
    except ValueError:
        return None


def consume_info(url: str, exchange: str, queue: str) -> QueueInfo:
    return QueueInfo(connection_url=url, exchange=exchange, queue=queue)


def publish_info(url: str, exchange: str, routing_key: str) -> QueueInfo:
    """For the official publishers, which pass the arguments to their library as they stand."""
    return QueueInfo(
        connection_url=url,
        exchange=exchange,
        queue=exchange,
        queue_publish_kwargs={
            "exchange": exchange,
            "routing_key": routing_key,
            "mandatory": True,
            "properties": {"delivery_mode": 2},
        },
    )
