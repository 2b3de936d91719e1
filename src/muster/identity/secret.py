"""Random things: what is handed out, and what is kept of it."""

from __future__ import annotations

import os
import secrets
import time
from hashlib import sha256
from typing import Final
from uuid import UUID

ACCESS: Final = "mt_"
REFRESH: Final = "mr_"
CLIENT: Final = "ms_"


def new_secret(prefix: str = "", size_bytes: int = 32) -> str:
    """Unguessable; the prefix lets scanners of leaked secrets recognise it."""
    return prefix + secrets.token_urlsafe(size_bytes)


def digest(secret: str) -> bytes:
    """What is stored: the secrets are random, so that one round is enough."""
    return sha256(secret.encode()).digest()


def new_id() -> UUID:
    """Time-ordered (the layout of version 7): of two identities the older one has the smaller id."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (7 << 76)
    return UUID(int=(value & ~(3 << 62)) | (2 << 62))
