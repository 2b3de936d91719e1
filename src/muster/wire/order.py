"""Sealed start orders: the site's root checks them, so a stolen broker or agent can become nobody.

Layout, all integers big endian, every text UTF-8 and length-prefixed (u32); nothing else may follow:

    "MUSTER-ORDER-1"  recipient  user-endpoint-name  nonce(16)  expires(u64, unix seconds)
    payload-sha256(32)  count(u16) { fields(u16) { name value }* }*

The seal is HMAC-SHA256 over exactly these bytes with the key root got at registration. `muster_root.order` reads the
same layout with the standard library alone; a contract test holds the two together. `payload-sha256` binds what
the user endpoint will read (its values, its broker credentials): it checks that digest itself, as the user.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

MAGIC = b"MUSTER-ORDER-1"
LIFETIME_S = 180
LIMIT_BYTES = 48 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """Start this user endpoint for the first of these identities that has an account."""

    recipient: str  # the manager's endpoint id
    name: str  # uep.MANAGER.ID
    nonce: bytes  # 16 bytes, never used twice
    expires_s: int
    payload_sha256: bytes
    identities: Sequence[Mapping[str, str]]  # text fields only, the primary one first

    def encode(self) -> bytes:
        parts = [MAGIC, _text(self.recipient), _text(self.name), self.nonce, self.expires_s.to_bytes(8, "big")]
        parts += [self.payload_sha256, len(self.identities).to_bytes(2, "big")]
        for identity in self.identities:
            parts.append(len(identity).to_bytes(2, "big"))
            for name in sorted(identity):
                parts += [_text(name), _text(identity[name])]
        return b"".join(parts)


def seal(order: bytes, key: bytes) -> bytes:
    """32 bytes that only the service and the site's root can make."""
    return hmac.new(key, order, sha256).digest()


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw
