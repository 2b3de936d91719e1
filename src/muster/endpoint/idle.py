"""When an idle user endpoint stops itself. Pure: whoever calls brings the clock."""

from __future__ import annotations


class Idle:
    """The seed's two limits, in heartbeats.

    `soft`: nothing outstanding for that many heartbeats, after at least one task was seen.
    `hard`: no task came and no result went for that many heartbeats, whatever is outstanding.
    A `soft` of 0 turns both off.
    """

    def __init__(self, soft: int, hard: int, period_s: float, now_s: float) -> None:
        self._soft = soft
        self._hard = max(soft + 1, hard)
        self._period_s = period_s
        self._moved = 0
        self._moved_at_s = now_s
        self._busy_at_s = now_s

    def observe(self, now_s: float, *, moved: int, outstanding: int) -> None:
        """Tell it the running count of tasks and results, and how many tasks have no confirmed result yet."""
        if moved != self._moved:
            self._moved, self._moved_at_s = moved, now_s
            self._busy_at_s = now_s
        if outstanding:
            self._busy_at_s = now_s

    def verdict(self, now_s: float) -> str | None:
        """Why it is time to stop, in plain words; None while it is not."""
        if not self._soft:
            return None
        without_work = self._beats(now_s - self._busy_at_s)
        if self._moved and without_work >= self._soft:
            return f"no work for {without_work} heartbeats (idle_heartbeats_soft: {self._soft})"
        without_movement = self._beats(now_s - self._moved_at_s)
        if without_movement >= self._hard:
            return f"no task or result moved for {without_movement} heartbeats (idle_heartbeats_hard: {self._hard})"
        return None

    def _beats(self, elapsed_s: float) -> int:
        # Half a millisecond of grace: a timer that fires a hair early has still waited its heartbeat.
        return int((elapsed_s + 0.0005) / self._period_s)
