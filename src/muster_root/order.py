"""Sealed start orders, read with the standard library alone: the other half of `muster.wire.order`.

Nothing of an order is looked at before its seal was found good.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

MAGIC = b"MUSTER-ORDER-1"
LIMIT_BYTES = 48 * 1024
LIFETIME_S = 180  # the service seals for this long
SKEW_S = 180  # how far our clock and the service's may be apart
MEMORY = 100_000  # nonces that are remembered at most


class No(Exception):
    """A refusal for the agent: a code, a sentence that its user may read, and one for this site's log."""

    def __init__(self, code: str, public: str, detail: str = "") -> None:
        super().__init__(detail or public)
        self.code, self.public = code, public


@dataclass(frozen=True, slots=True)
class Order:
    """Start this user endpoint for the first of these identities that has an account."""

    recipient: str
    name: str
    nonce: bytes
    expires_s: int
    payload_sha256: bytes
    identities: list[dict[str, str]]


class _Reader:
    """Takes fields off the front; ValueError when there is less than promised."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, size: int) -> bytes:
        part = self.raw[self.at : self.at + size]
        self.at += size
        if len(part) != size:
            raise ValueError(f"it ends at byte {len(self.raw)}")
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(4)).decode()


def read(raw: bytes) -> Order:
    """The order in these bytes; ValueError when they are none, or hold anything more."""
    reader = _Reader(raw)
    if reader.take(len(MAGIC)) != MAGIC:
        raise ValueError("it is of another version")
    recipient, name, nonce, expires_s = reader.text(), reader.text(), reader.take(16), reader.number(8)
    digest, count = reader.take(32), reader.number(2)
    identities = [{reader.text(): reader.text() for _ in range(reader.number(2))} for _ in range(count)]
    if reader.at != len(raw) or not identities:
        raise ValueError("it has no identity, or bytes after its end")
    return Order(recipient, name, nonce, expires_s, digest, identities)


class Gate:
    """Lets an order pass once, if the service sealed it for us, not long ago and not before we began."""

    def __init__(self, recipient: str, key: bytes, began_s: float) -> None:
        self.recipient, self.key, self.began_s = recipient, key, began_s
        self.seen: dict[bytes, int] = {}
        self.form = re.compile(rf"uep\.{re.escape(recipient)}\.[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")

    def check(self, raw: bytes, seal: bytes, now_s: float) -> Order:
        """The order, if it may pass. A repeated or old one is refused with STALE: the service asks anew by itself."""
        if not hmac.compare_digest(hmac.digest(self.key, raw, "sha256"), seal):
            raise No("START_FAILED", "The site refused the start order: its seal is not good.", "a bad seal")
        try:
            order = read(raw)
        except ValueError as why:
            raise No("START_FAILED", "The site cannot read the start order.", f"a sealed order, but {why}") from None
        if order.recipient != self.recipient or not self.form.fullmatch(order.name):
            raise No("START_FAILED", "The start order is for another endpoint.", f"for {order.recipient[:80]!r}")
        if not now_s <= order.expires_s <= now_s + LIFETIME_S + SKEW_S:
            raise No("STALE", "The start order is too old, or our clocks are too far apart.")
        if order.expires_s - LIFETIME_S < int(self.began_s):  # what an earlier monitor saw is forgotten: refuse it all
            raise No("STALE", "The start order is older than this manager.")
        return order

    def remember(self, order: Order, now_s: float) -> None:
        """From now on this order is used up."""
        if order.nonce in self.seen:
            raise No("STALE", "The start order was used before.", f"a replayed order for {order.name}")
        if len(self.seen) >= MEMORY:
            self.seen = {nonce: expires_s for nonce, expires_s in self.seen.items() if expires_s >= now_s}
        if len(self.seen) >= MEMORY:
            raise No("STALE", "The site is busy with very many start orders.")
        self.seen[order.nonce] = order.expires_s
