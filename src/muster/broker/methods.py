"""The methods of a channel, one function each, and the table that finds them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from pamqp import commands
from pamqp.base import Frame

from muster.broker import faults, frames
from muster.broker.channel import Channel, ChannelConsumer
from muster.broker.queue import Queue

_RESERVED = "amq."


def _queue(channel: Channel, name: str) -> Queue:
    """The queue of that name, or the last one declared here; 405 when it is another connection's own."""
    found = channel.connection.topology.queue(name or channel.last_queue)
    if found.owner is not None and found.owner is not channel.connection:
        raise faults.locked(found.name)
    return found


def exchange_declare(channel: Channel, method: commands.Exchange.Declare) -> None:
    connection = channel.connection
    name = method.exchange
    if method.passive:
        connection.require_look("exchange", name)
        connection.topology.exchange(name)
    else:
        connection.require("configure", "exchange", name)
        _known_arguments(method.arguments)
        if name not in connection.topology.exchanges and (not name or name.startswith(_RESERVED)):
            raise faults.ChannelFault(403, f"ACCESS_REFUSED - exchange name '{name}' contains reserved prefix 'amq.*'")
        connection.topology.declare_exchange(
            name,
            method.exchange_type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
        )
    _answer(channel, method, commands.Exchange.DeclareOk())


def exchange_delete(channel: Channel, method: commands.Exchange.Delete) -> None:
    name = method.exchange
    channel.connection.require("configure", "exchange", name)
    if not name or name.startswith(_RESERVED):
        raise faults.ChannelFault(403, f"ACCESS_REFUSED - exchange name '{name}' contains reserved prefix 'amq.*'")
    exchange = channel.connection.topology.exchanges.get(name)
    if exchange is not None:
        if method.if_unused and exchange.bindings:
            raise faults.precondition(f"exchange '{name}' in vhost '/' in use")
        channel.connection.topology.delete_exchange(name)
    _answer(channel, method, commands.Exchange.DeleteOk())


def queue_declare(channel: Channel, method: commands.Queue.Declare) -> None:
    connection = channel.connection
    name = method.queue
    if method.passive:
        connection.require_look("queue", name or channel.last_queue)
        queue = _queue(channel, name)
    else:
        name = name or f"{_RESERVED}gen-{secrets.token_urlsafe(16)}"
        connection.require("configure", "queue", name)
        _known_arguments(method.arguments)
        queue = _declared(channel, name, method)
    channel.last_queue = queue.name
    # The depth of a queue is its reader's business: an account that may only look is told nothing.
    counts = (len(queue.ready), len(queue.consumers)) if connection.may("read", "queue", queue.name) else (0, 0)
    if not method.nowait:
        channel.connection.send(frames.declare_ok(channel.number, queue.name, *counts))


def _declared(channel: Channel, name: str, method: commands.Queue.Declare) -> Queue:
    connection = channel.connection
    topology = connection.topology
    if name in topology.queues:
        _queue(channel, name)
    elif method.queue.startswith(_RESERVED):
        raise faults.ChannelFault(403, f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'")
    owner = connection if method.exclusive else None
    topology.declare_queue(name, durable=method.durable, auto_delete=method.auto_delete, owner=owner)
    if owner is not None:
        connection.own_queues.add(name)
    return topology.queues[name]


def queue_bind(channel: Channel, method: commands.Queue.Bind) -> None:
    name = method.queue or channel.last_queue
    channel.connection.require("write", "queue", name)
    channel.connection.require("read", "exchange", method.exchange)
    _known_arguments(method.arguments)
    _not_default(method.exchange)
    channel.connection.topology.bind(_queue(channel, name).name, method.exchange, method.routing_key)
    _answer(channel, method, commands.Queue.BindOk())


def queue_unbind(channel: Channel, method: commands.Queue.Unbind) -> None:
    name = method.queue or channel.last_queue
    channel.connection.require("write", "queue", name)
    channel.connection.require("read", "exchange", method.exchange)
    _not_default(method.exchange)
    channel.connection.topology.unbind(_queue(channel, name).name, method.exchange, method.routing_key)
    channel.send(commands.Queue.UnbindOk())


def queue_purge(channel: Channel, method: commands.Queue.Purge) -> None:
    name = method.queue or channel.last_queue
    channel.connection.require("read", "queue", name)
    _answer(channel, method, commands.Queue.PurgeOk(_queue(channel, name).purge()))


def queue_delete(channel: Channel, method: commands.Queue.Delete) -> None:
    name = method.queue or channel.last_queue
    channel.connection.require("configure", "queue", name)
    thrown = 0
    if name in channel.connection.topology.queues:
        queue = _queue(channel, name)
        if method.if_unused and queue.consumers:
            raise faults.precondition(f"queue '{name}' in vhost '/' in use")
        if method.if_empty and queue.ready:
            raise faults.precondition(f"queue '{name}' in vhost '/' is not empty")
        thrown = channel.connection.topology.delete_queue(queue)
    _answer(channel, method, commands.Queue.DeleteOk(thrown))


def basic_qos(channel: Channel, method: commands.Basic.Qos) -> None:
    if method.prefetch_size:
        raise faults.not_implemented("prefetch_size!=0")
    if method.global_:
        channel.channel_prefetch = method.prefetch_count
    else:
        channel.prefetch = method.prefetch_count
    channel.send(commands.Basic.QosOk())
    channel.pump()


def basic_consume(channel: Channel, method: commands.Basic.Consume) -> None:
    name = method.queue or channel.last_queue
    channel.connection.require("read", "queue", name)
    _known_arguments(method.arguments)
    queue = _queue(channel, name)
    tag = method.consumer_tag or f"{_RESERVED}ctag-{secrets.token_urlsafe(16)}"
    if tag in channel.consumers:
        raise faults.ConnectionFault(530, f"NOT_ALLOWED - attempt to reuse consumer tag '{tag}'")
    if len(channel.consumers) >= channel.connection.limits.consumers:
        raise faults.ConnectionFault(530, "NOT_ALLOWED - too many consumers on this channel")
    consumer = ChannelConsumer(channel, tag, queue, no_ack=method.no_ack, exclusive=method.exclusive)
    queue.add(consumer)
    channel.consumers[tag] = consumer
    _answer(channel, method, commands.Basic.ConsumeOk(tag))
    queue.pump()


def basic_cancel(channel: Channel, method: commands.Basic.Cancel) -> None:
    channel.cancel(method.consumer_tag or "")
    _answer(channel, method, commands.Basic.CancelOk(method.consumer_tag))


def basic_get(channel: Channel, method: commands.Basic.Get) -> None:
    name = method.queue or channel.last_queue
    channel.connection.require("read", "queue", name)
    queue = _queue(channel, name)
    if any(consumer.exclusive for consumer in queue.consumers):
        raise faults.in_exclusive_use(name)
    if not queue.ready:
        channel.send(commands.Basic.GetEmpty())
        return
    entry = queue.get()
    tag = channel.give(queue, entry, None, no_ack=method.no_ack)
    channel.connection.send(frames.get_ok(channel.number, tag, entry.redelivered, entry.message, len(queue.ready)))
    channel.send_content(entry.message)


def basic_nack(channel: Channel, method: commands.Basic.Nack) -> None:
    channel.reject(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)


def basic_reject(channel: Channel, method: commands.Basic.Reject) -> None:
    channel.reject(method.delivery_tag or 0, multiple=False, requeue=method.requeue)


def basic_recover(channel: Channel, method: commands.Basic.Recover) -> None:
    if not method.requeue:
        raise faults.not_implemented("requeue=false")
    channel.recover()
    channel.send(commands.Basic.RecoverOk())


def confirm_select(channel: Channel, method: commands.Confirm.Select) -> None:
    channel.confirming = True
    _answer(channel, method, commands.Confirm.SelectOk())


def channel_flow(channel: Channel, method: commands.Channel.Flow) -> None:
    channel.flowing = bool(method.active)
    channel.send(commands.Channel.FlowOk(method.active))
    channel.pump()


def channel_close(channel: Channel, _method: commands.Channel.Close) -> None:
    channel.flush_confirms()
    channel.end()
    channel.connection.channels.pop(channel.number, None)
    channel.send(commands.Channel.CloseOk())


def nothing(_channel: Channel, _method: Frame) -> None:
    """Answers to what we sent: no more than that is expected."""


def _not_default(exchange: str) -> None:
    if not exchange:
        raise faults.ChannelFault(403, "ACCESS_REFUSED - operation not permitted on the default exchange")


def _known_arguments(arguments: dict[str, Any] | None) -> None:
    """An argument that we would ignore (a time to live, a dead letter exchange) is refused, not ignored."""
    for name in (arguments or {}).keys() - {"x-consumer-timeout"}:  # we never take a message from its reader
        raise faults.precondition(f"argument '{name[:64]}' is not supported by this broker")


def _answer(channel: Channel, method: Any, answer: Frame) -> None:
    if not method.nowait:
        channel.send(answer)


HANDLERS: dict[type[Frame], Callable[[Channel, Any], None]] = {
    commands.Exchange.Declare: exchange_declare,
    commands.Exchange.Delete: exchange_delete,
    commands.Queue.Declare: queue_declare,
    commands.Queue.Bind: queue_bind,
    commands.Queue.Unbind: queue_unbind,
    commands.Queue.Purge: queue_purge,
    commands.Queue.Delete: queue_delete,
    commands.Basic.Qos: basic_qos,
    commands.Basic.Consume: basic_consume,
    commands.Basic.Cancel: basic_cancel,
    commands.Basic.CancelOk: nothing,
    commands.Basic.Get: basic_get,
    commands.Basic.Nack: basic_nack,
    commands.Basic.Reject: basic_reject,
    commands.Basic.Recover: basic_recover,
    commands.Confirm.Select: confirm_select,
    commands.Channel.Flow: channel_flow,
    commands.Channel.FlowOk: nothing,
    commands.Channel.Close: channel_close,
}
