"""Task ids that sort by time: new rows land at the end of the index."""

from __future__ import annotations

import os
import time
from uuid import UUID

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


def time_ordered_ids(count: int) -> list[UUID]:
    """That many new ids (layout of UUID version 7), ascending, unguessable."""
    millis = time.time_ns() // 1_000_000
    head = (millis & (2**48 - 1)) << 80 | _VERSION_7 | _VARIANT
    raw = os.urandom(8 * count)
    ids = []
    for at in range(count):
        random = int.from_bytes(raw[8 * at : 8 * at + 8], "big")
        # 12 bits count within this call, so that order of submission is order of ids; then 62 random bits
        counter = at * 4096 // count if count > 4096 else at
        ids.append(UUID(int=head | (counter & 0xFFF) << 64 | random & (2**62 - 1)))
    return ids
