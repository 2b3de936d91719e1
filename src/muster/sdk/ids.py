"""Task ids that sort by the time they were made (the layout of UUID version 7), so that a store appends them."""

from __future__ import annotations

import os
import threading
import time

_RANDOM_BITS = 74
_lock = threading.Lock()
_last_ms = 0
_last_random = 0


def new_key() -> bytes:
    """16 bytes, greater than every key this process made before, and unlike any other process's."""
    global _last_ms, _last_random  # noqa: PLW0603 - one sequence per process
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms:
            _last_ms = now_ms
            # The highest bit stays free for the steps below: a millisecond cannot overflow it.
            _last_random = int.from_bytes(os.urandom(10), "big") >> (80 - _RANDOM_BITS + 1)
        else:
            # The step comes from the kernel: two children of one fork go different ways from here.
            _last_random += 1 + int.from_bytes(os.urandom(4), "big")
        high, low = _last_random >> 62, _last_random & ((1 << 62) - 1)
        value = (_last_ms << 80) | (7 << 76) | (high << 64) | (2 << 62) | low
    return value.to_bytes(16, "big")


def text_of(key: bytes) -> str:
    """The key as everyone writes a UUID."""
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def key_of(task_id: str) -> bytes:
    """The 16 bytes of a written task id."""
    return bytes.fromhex(task_id.replace("-", ""))
