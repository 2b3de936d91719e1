"""From the first byte to an open connection: who is it, and what do we agree on."""

from __future__ import annotations

import asyncio
import logging
from enum import IntEnum
from typing import TYPE_CHECKING

from pamqp import commands
from pamqp.base import Frame
from pamqp.common import FieldTable

import muster
from muster.broker import faults

if TYPE_CHECKING:
    from muster.broker.connection import Connection

log = logging.getLogger("muster.broker")

CAPABILITIES = {
    "publisher_confirms": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "exchange_exchange_bindings": False,
    "direct_reply_to": False,
}


class Stage(IntEnum):
    """How far the connection is; it never goes back."""

    GREETING = 0
    START = 1
    LOGIN = 2
    TUNE = 3
    VHOST = 4
    OPEN = 5
    CLOSING = 6
    CLOSED = 7


def start() -> commands.Connection.Start:
    properties: FieldTable = {
        "product": "Muster",
        "version": muster.__version__,
        "platform": "Python",
        "capabilities": dict(CAPABILITIES),
    }
    return commands.Connection.Start(0, 9, properties, "PLAIN", "en_US")


def on_method(connection: Connection, method: Frame) -> None:
    """Methods of channel 0; 503 for one that does not belong here and now."""
    stage = connection.stage
    if isinstance(method, commands.Connection.Close):
        connection.peer_closes()
    elif isinstance(method, commands.Connection.StartOk) and stage is Stage.START:
        _log_in(connection, method)
    elif isinstance(method, commands.Connection.TuneOk) and stage is Stage.TUNE:
        _tune(connection, method)
    elif isinstance(method, commands.Connection.Open) and stage is Stage.VHOST:
        if method.virtual_host != "/":
            raise faults.ConnectionFault(530, f"NOT_ALLOWED - vhost {method.virtual_host} not found")
        connection.opened()
        connection.send_method(commands.Connection.OpenOk())
        connection.pressure(full=connection.topology.full)
    else:
        raise faults.ConnectionFault(503, f"COMMAND_INVALID - {method.name} in this state")


def _log_in(connection: Connection, method: commands.Connection.StartOk) -> None:
    client = method.client_properties if isinstance(method.client_properties, dict) else {}
    capabilities = client.get("capabilities")
    if isinstance(capabilities, dict):
        connection.notices_cancel = bool(capabilities.get("consumer_cancel_notify"))
        connection.notices_blocked = bool(capabilities.get("connection.blocked"))
        connection.hears_refusal = bool(capabilities.get("authentication_failure_close"))
    if method.mechanism != "PLAIN":
        raise _refusal(method.mechanism)
    username, password = _plain(method.response)
    connection.username = username
    connection.stage = Stage.LOGIN
    connection.hold("login")
    connection.login = asyncio.get_running_loop().create_task(_authorise(connection, username, password))


def _plain(response: object) -> tuple[str, str]:
    """The three parts of SASL PLAIN; an identity to act as is not accepted."""
    try:
        text = response if isinstance(response, str) else bytes(response).decode()  # type: ignore[call-overload]
    except (TypeError, UnicodeDecodeError) as why:
        raise _refusal("PLAIN") from why
    parts = text.split("\0")
    if len(parts) != 3 or parts[0] not in ("", parts[1]):
        raise _refusal("PLAIN")
    return parts[1], parts[2]


async def _authorise(connection: Connection, username: str, password: str) -> None:
    try:
        account = await connection.authorise(username, password)
    except Exception:  # the lookup belongs to somebody else (a database): its failure must not end the broker
        log.exception("cannot look up broker account %r", username)
        connection.fail(faults.ConnectionFault(541, "INTERNAL_ERROR - login is not possible at the moment"))
        return
    if connection.stage is not Stage.LOGIN:
        return  # disconnected, or gone, meanwhile
    if account is None:
        log.warning("broker login refused for %r from %s", username[:80], connection.peer)
        connection.fail(_refusal("PLAIN"))
        return
    connection.account = account
    connection.stage = Stage.TUNE
    limits = connection.limits
    connection.send_method(commands.Connection.Tune(limits.channels, limits.frame_bytes, limits.heartbeat_s))
    connection.release("login")


def _refusal(mechanism: str) -> faults.ConnectionFault:
    return faults.ConnectionFault(
        403, f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism[:40]}."
    )


def _tune(connection: Connection, method: commands.Connection.TuneOk) -> None:
    limits = connection.limits
    if method.channel_max > limits.channels or method.frame_max > limits.frame_bytes:
        raise faults.ConnectionFault(530, "NOT_ALLOWED - negotiated more than was offered")
    if 0 < method.frame_max < 4096:
        raise faults.ConnectionFault(530, "NOT_ALLOWED - negotiated frame_max is lower than the minimum 4096")
    connection.frame_bytes = method.frame_max or limits.frame_bytes
    connection.channel_limit = method.channel_max or limits.channels
    connection.stage = Stage.VHOST
    connection.beat_every(method.heartbeat)
