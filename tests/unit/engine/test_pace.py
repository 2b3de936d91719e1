from __future__ import annotations

from muster.engine.pace import Pace


def test_a_function_never_seen_counts_as_long() -> None:
    assert Pace().expect_ns(b"f") > 1e15


def test_one_slow_call_is_believed_sooner_than_one_fast_call() -> None:
    slow, fast = Pace(), Pace()
    slow.saw(b"f", 1_000)
    slow.saw(b"f", 1_000_000)
    fast.saw(b"f", 1_000_000)
    fast.saw(b"f", 1_000)
    assert slow.expect_ns(b"f") > 500_000
    assert fast.expect_ns(b"f") > 500_000


def test_room_is_two_for_each_worker_until_something_is_known_and_a_tenth_of_a_second_of_work_after() -> None:
    pace = Pace()
    assert (pace.room(4, 0), pace.room(4, 8)) == (8, 0)
    pace.saw(b"f", 1_000_000)
    assert pace.room(4, 0) == 400
    for _ in range(200):
        pace.saw(b"f", 10)
    assert pace.room(4, 500) == 1500
