"""Orders as the service would seal them, and broken ones."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4, uuid5

from muster.wire.order import Order, seal

MANAGER = "4ade2ce0-9c00-4d8c-b996-4dff8fbb4bd0"
KEY = bytes(range(32))
RECORD = {"endpoint_id": MANAGER, "seal_key": KEY.hex(), "owners": str(uuid5(UUID(MANAGER), "owner"))}
MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(.*)@example\\.org", "output": "{0}"}],
    }
]
LATER_S = 60  # orders of this test seem sealed after the monitor began, however slowly it starts


def name_of(user_endpoint: str = "one") -> str:
    return f"uep.{MANAGER}.{uuid5(UUID(MANAGER), user_endpoint)}"


def identity(username: str, **more: str) -> dict[str, str]:
    return {"id": str(uuid5(UUID(MANAGER), username)), "username": username, "status": "used", **more}


def order(username: str = "alice@example.org", **more: Any) -> Order:
    facts: dict[str, Any] = {
        "recipient": MANAGER,
        "name": name_of(),
        "nonce": uuid4().bytes,
        "expires_s": int(time.time()) + 180 + LATER_S,
        "payload_sha256": sha256(b"secret for alice").digest(),
        "identities": [identity(username)],
    }
    return Order(**{**facts, **more})


def step(
    wanted: Order | bytes,
    *,
    key: bytes = KEY,
    payload: str = "secret for alice",
    until: Sequence[str] = ("answer",),
    **more: Any,
) -> Mapping[str, Any]:
    """What the scripted agent does with it."""
    raw = wanted if isinstance(wanted, bytes) else wanted.encode()
    sealed = more.pop("seal", None) or seal(raw, key)
    text = {"order": base64.b64encode(raw).decode(), "seal": base64.b64encode(sealed).decode()}
    return {"start": {**text, "payload": payload, **more}, "await": list(until)}
