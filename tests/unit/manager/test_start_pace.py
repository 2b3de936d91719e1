"""How fast user endpoints of one name may follow each other."""

from __future__ import annotations

from muster.manager.starts import Pace


def test_a_first_start_waits_for_nothing() -> None:
    assert Pace().wait_s("uep.a", 50) == 0


def test_a_second_start_waits_a_second_and_each_further_one_twice_as_long_up_to_half_a_minute() -> None:
    pace, now_s, waits_s = Pace(), 100.0, []
    for _ in range(8):
        pace.begin("uep.a", now_s)
        waits_s.append(pace.wait_s("uep.a", now_s))
        now_s += waits_s[-1]
    assert waits_s == [1, 2, 4, 8, 16, 30, 30, 30]


def test_asking_changes_nothing_and_names_do_not_share_a_pace() -> None:
    pace = Pace()
    pace.begin("uep.a", 100)
    assert [pace.wait_s("uep.a", 100.25) for _ in range(3)] == [0.75] * 3
    assert pace.wait_s("uep.b", 100.25) == 0


def test_a_start_after_a_long_calm_begins_at_the_first_pause_again() -> None:
    pace = Pace()
    pace.begin("uep.a", 100)
    pace.begin("uep.a", 101)
    pace.begin("uep.a", 500)
    assert pace.wait_s("uep.a", 500) == 1
