"""The service writes orders with `muster.wire.order`, root reads them with `muster_root.order`: one layout."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.wire import order as wire
from muster_root import order as root

MANAGER = "4ade2ce0-9c00-4d8c-b996-4dff8fbb4bd0"
NAME = f"uep.{MANAGER}.e9097f8f-dcfc-3bc0-1b42-0b4ad5e3922a"
KEY = b"k" * 32
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
IDENTITIES = st.lists(st.dictionaries(TEXT, TEXT, max_size=6), min_size=1, max_size=4)


def order(**facts: Any) -> wire.Order:
    known: dict[str, Any] = {
        "recipient": MANAGER,
        "name": NAME,
        "nonce": b"n" * 16,
        "expires_s": int(time.time()) + 180,
        "payload_sha256": b"p" * 32,
        "identities": [{"id": "1"}],
    }
    return wire.Order(**{**known, **facts})


@given(TEXT, TEXT, st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), IDENTITIES)
def test_what_the_service_writes_root_reads(
    recipient: str, name: str, nonce: bytes, expires_s: int, identities: list[dict[str, str]]
) -> None:
    written = order(recipient=recipient, name=name, nonce=nonce, expires_s=expires_s, identities=identities)
    read = root.read(written.encode())
    for field in ("recipient", "name", "nonce", "expires_s", "payload_sha256", "identities"):
        assert getattr(read, field) == getattr(written, field)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_order_or_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        root.read(wire.MAGIC + raw)


@given(st.data())
def test_a_cut_or_longer_order_is_none(data: st.DataObject) -> None:
    raw = order().encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    for broken in (raw[:cut], raw + data.draw(st.binary(min_size=1, max_size=9))):
        with pytest.raises(ValueError):
            root.read(broken)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_can_be_changed_under_the_seal(at: int, by: int) -> None:
    raw = bytearray(order().encode())
    seal = wire.seal(bytes(raw), KEY)
    gate = root.Gate(MANAGER, KEY, time.time() - 10)
    assert gate.check(bytes(raw), seal, time.time()).name == NAME
    raw[at % len(raw)] ^= by
    with pytest.raises(root.No) as refused:
        gate.check(bytes(raw), seal, time.time())
    assert refused.value.code == "START_FAILED"


def test_the_two_modules_agree_on_the_constants() -> None:
    assert (wire.MAGIC, wire.LIFETIME_S, wire.LIMIT_BYTES) == (root.MAGIC, root.LIFETIME_S, root.LIMIT_BYTES)


def test_a_nonce_passes_once_and_is_forgotten_only_after_its_end() -> None:
    gate = root.Gate(MANAGER, KEY, 0)
    now_s = time.time()
    gate.seen = {number.to_bytes(16, "big"): int(now_s) - 1 for number in range(1000)}
    raw = order().encode()
    one = gate.check(raw, wire.seal(raw, KEY), now_s)
    gate.remember(one, now_s)
    assert gate.seen == {one.nonce: one.expires_s}
    with pytest.raises(root.No, match="replayed"):
        gate.remember(one, now_s)


def test_what_an_earlier_gate_may_have_seen_is_refused_by_the_next() -> None:
    """Also when the service's clock is ahead, and not for ever when ours was."""
    now_s = int(time.time())
    ahead = order(expires_s=now_s + root.LIFETIME_S + 100)
    raw = ahead.encode()
    first = root.Gate(MANAGER, KEY, now_s - 60)
    first.remember(first.check(raw, wire.seal(raw, KEY), now_s), now_s)
    with pytest.raises(root.No, match="too old"):
        root.Gate(MANAGER, KEY, now_s, first.last_s).check(raw, wire.seal(raw, KEY), now_s)
    later = order(expires_s=ahead.expires_s + 1).encode()
    assert root.Gate(MANAGER, KEY, now_s, first.last_s).check(later, wire.seal(later, KEY), now_s)
    wrong_clock = root.Gate(MANAGER, KEY, now_s, now_s + 10**8)
    assert wrong_clock.after_s <= now_s + root.LIFETIME_S + root.SKEW_S
