"""Logins under way: what an authorization code or a device code remembers until it is traded."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import Final

import msgspec

CODE_S: Final = 600  # long enough to copy it to a terminal by hand
DEVICE_S: Final = 900
POLL_S: Final = 5
PENDING, APPROVED, DENIED = "pending", "approved", "denied"
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, no look-alikes (RFC 8628 6.1)
_LIMIT_POLLS: Final = 10_000


class CodeData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an authorization code is bound to."""

    redirect_uri: str
    challenge: str
    state: str = ""
    nonce: str | None = None


class DeviceData(msgspec.Struct, kw_only=True):
    """What a person sees and decides about a device login. `user_code` has no dash here."""

    user_code: str
    state: str = PENDING


def new_user_code() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(8))


def plain_user_code(typed: str) -> str:
    """As stored, however it was typed; empty when it cannot be one."""
    letters = "".join(letter for letter in typed.upper() if letter in _LETTERS)
    return letters if len(letters) == 8 and len(typed) <= 20 else ""


def shown_user_code(plain: str) -> str:
    return f"{plain[:4]}-{plain[4:]}"


class Polls:
    """When each device code was last asked about."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, float] = OrderedDict()

    def too_soon(self, key: bytes) -> bool:
        now_s = time.monotonic()
        before_s = self._last.pop(key, 0.0)
        self._last[key] = now_s
        if len(self._last) > _LIMIT_POLLS:
            self._last.popitem(last=False)
        return now_s - before_s < POLL_S - 0.5  # the network may squeeze two polls together
