"""The start command on a manager's command queue: the official document, and our sealed order beside it.

Official managers read the official fields and ignore `sealed`; ours read `sealed` alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from muster.errors import UndecodableMessage

START = "cmd_start_endpoint"


class Sealed(msgspec.Struct, kw_only=True):
    """`order` and `seal` as in `wire.order` (base64 on the wire); `payload` is the JSON text of a Payload."""

    order: bytes
    seal: bytes
    payload: str


class QueueInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where to consume or publish. `queue_publish_kwargs` goes to the client library as it is."""

    connection_url: str
    exchange: str
    queue: str
    queue_publish_kwargs: dict[str, Any] | None = None


class BrokerCredentials(msgspec.Struct, kw_only=True):
    """`amqp_creds` of the official command."""

    endpoint_id: str
    task_queue_info: QueueInfo
    result_queue_info: QueueInfo
    heartbeat_queue_info: QueueInfo


class Payload(msgspec.Struct, kw_only=True):
    """What the user endpoint itself reads, as the user: the official kwargs, and what our service adds."""

    name: str
    user_opts: dict[str, Any] = {}
    user_runtime: dict[str, Any] = {}
    amqp_creds: BrokerCredentials
    allowed_functions: list[str] | None = None
    bundles: int = 0  # the service reads bundles of results from this endpoint


class StartCommand(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The whole body. AMQP properties: content_type application/json, timestamp within 180 s of the agent's clock."""

    command: str
    globus_username: str
    globus_effective_identity: str
    globus_identity_set: list[dict[str, Any]]
    args: list[str] = []
    kwargs: Payload | None = None  # official managers
    sealed: Sealed | None = None  # ours


_DECODER = msgspec.json.Decoder(StartCommand)
_PAYLOAD = msgspec.json.Decoder(Payload)


def decode_command(body: bytes) -> StartCommand:
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise UndecodableMessage(why=str(why)[:200]) from None


def decode_payload(text: bytes | str) -> Payload:
    try:
        return _PAYLOAD.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise UndecodableMessage(why=str(why)[:200]) from None


def encode_json(document: msgspec.Struct) -> bytes:
    return msgspec.json.encode(document)
