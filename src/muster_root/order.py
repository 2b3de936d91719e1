"""Sealed start orders, read with the standard library alone: the other half of `muster.wire.order`.

Nothing of an order is looked at before its seal was found good.
"""

from __future__ import annotations

import hmac
import io
import re
from typing import NamedTuple

MAGIC = b"MUSTER-ORDER-1"
LIMIT_BYTES = 48 * 1024
LIFETIME_S = 180  # the service seals for this long
SKEW_S = 180  # how far our clock and the service's may be apart


class No(Exception):
    """A refusal for the agent: a code, a sentence that its user may read, and one for this site's log."""

    def __init__(self, code: str, public: str, detail: str = "") -> None:
        super().__init__(detail or public)
        self.code, self.public = code, public


class Order(NamedTuple):
    """Start this user endpoint for the first of these identities that has an account."""

    recipient: str
    name: str
    nonce: bytes
    expires_s: int
    payload_sha256: bytes
    identities: list[dict[str, str]]


def read(raw: bytes) -> Order:
    """The order in these bytes; ValueError when they are none, or hold anything more."""
    rest = io.BytesIO(raw)

    def take(size: int) -> bytes:
        part = rest.read(size)
        if len(part) != size:
            raise ValueError(f"it ends at byte {len(raw)}")
        return part

    def number(size: int) -> int:
        return int.from_bytes(take(size), "big")

    def text() -> str:
        return take(number(4)).decode()

    if take(len(MAGIC)) != MAGIC:
        raise ValueError("it is of another version")
    order = Order(text(), text(), take(16), number(8), take(32), [])
    for _ in range(number(2)):
        order.identities.append({text(): text() for _ in range(number(2))})
    if rest.read(1) or not order.identities:
        raise ValueError("it has no identity, or bytes after its end")
    return order


class Gate:
    """Lets an order pass once, if the service sealed it for us, not long ago and after all that an earlier gate saw."""

    def __init__(self, recipient: str, key: bytes, began_s: float, last_s: int = 0) -> None:
        self.recipient, self.key, self.seen = recipient, key, dict[bytes, int]()
        self.form = re.compile(rf"uep\.{re.escape(recipient)}\.[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")
        fresh_s = int(began_s) + LIFETIME_S  # the nonces of earlier gates are forgotten: what they may have seen is old
        self.last_s = self.after_s = max(
            fresh_s - 1, min(last_s, fresh_s + SKEW_S)
        )  # not for ever, if a clock was wrong

    def check(self, raw: bytes, seal: bytes, now_s: float) -> Order:
        """The order, if it may pass. A repeated or old one is refused with STALE: the service asks anew by itself."""
        if not hmac.compare_digest(hmac.digest(self.key, raw, "sha256"), seal):
            raise No("START_FAILED", "The site refused the start order: its seal is not good.", "a bad seal")
        order = read(raw)
        if order.recipient != self.recipient or not self.form.fullmatch(order.name):
            raise No("START_FAILED", "The start order is for another endpoint.", f"for {order.recipient[:80]!r}")
        if not max(now_s, self.after_s + 1) <= order.expires_s <= now_s + LIFETIME_S + SKEW_S:
            raise No("STALE", "The start order is too old, or our clocks are too far apart.")
        return order

    def remember(self, order: Order, now_s: float) -> None:
        """From now on this order is used up."""
        if order.nonce in self.seen:
            raise No("STALE", "The start order was used before.", f"a replayed order for {order.name}")
        self.seen = {nonce: expires_s for nonce, expires_s in self.seen.items() if expires_s >= now_s}
        self.seen[order.nonce], self.last_s = order.expires_s, max(self.last_s, order.expires_s)
