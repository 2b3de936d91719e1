from __future__ import annotations

import pytest

from muster.endpoint.idle import Idle

PERIOD_S = 30.0


class Beats:
    """Thirty seconds a beat, nobody waits."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now_s = 1000.0
        self.idle = Idle(soft, hard, PERIOD_S, self.now_s)

    def until_stop(self, *, moved: int, outstanding: int, most: int = 10_000) -> int | None:
        for beat in range(1, most + 1):
            self.now_s += PERIOD_S
            self.idle.observe(self.now_s, moved=moved, outstanding=outstanding)
            if self.idle.verdict(self.now_s) is not None:
                return beat
        return None


def seen_a_task(soft: int, hard: int) -> Beats:
    beats = Beats(soft, hard)
    beats.idle.observe(beats.now_s, moved=2, outstanding=0)
    return beats


def test_soft_counts_heartbeats_without_work() -> None:
    assert seen_a_task(10, 5760).until_stop(moved=2, outstanding=0) == 10


def test_soft_waits_for_the_first_task() -> None:
    assert Beats(2, 20).until_stop(moved=0, outstanding=0) == 20


def test_soft_does_not_count_while_something_is_outstanding() -> None:
    beats = seen_a_task(3, 50)
    assert beats.until_stop(moved=2, outstanding=1, most=20) is None
    assert beats.until_stop(moved=2, outstanding=0) == 3


def test_hard_seven_is_three_and_a_half_minutes() -> None:
    assert seen_a_task(1, 7).until_stop(moved=2, outstanding=5) == 7


def test_hard_starts_anew_with_every_movement() -> None:
    beats = seen_a_task(1, 7)
    assert beats.until_stop(moved=2, outstanding=5, most=6) is None
    assert beats.until_stop(moved=3, outstanding=5, most=1) is None
    assert beats.until_stop(moved=3, outstanding=5) == 7


def test_hard_is_never_shorter_than_soft_and_one() -> None:
    assert Beats(10, 5).until_stop(moved=0, outstanding=1) == 11


@pytest.mark.parametrize("hard", [0, 1, 5760])
def test_soft_zero_turns_both_off(hard: int) -> None:
    assert seen_a_task(0, hard).until_stop(moved=2, outstanding=0) is None
