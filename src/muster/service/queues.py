"""What the service declares; everybody else only consumes and publishes."""

from __future__ import annotations

from uuid import UUID

from muster.transport.contract import Binding, QueueSpec
from muster.wire import topology

_LONGEST_TASK_S = 14 * 86_400


def results() -> QueueSpec:
    return QueueSpec(topology.RESULTS, (Binding(topology.RESULTS, "topic", "*.results"),), confirm_on_ack=True)


def heartbeats() -> QueueSpec:
    return QueueSpec(topology.HEARTBEATS, (Binding(topology.HEARTBEATS, "topic", "*.heartbeats"),))


def commands(manager: UUID) -> QueueSpec:
    name = topology.commands_queue(manager)
    return QueueSpec(name, (Binding(topology.COMMANDS, "direct", name),))


def tasks(endpoint: UUID) -> QueueSpec:
    """Held for as long as the task runs: days, where a broker's own default is half an hour."""
    name = topology.tasks_queue(endpoint)
    return QueueSpec(name, (Binding(topology.TASKS, "direct", name),), held_s=_LONGEST_TASK_S)


def group(identity: UUID, group_id: UUID) -> QueueSpec:
    return QueueSpec(topology.group_queue(identity, group_id))
