"""Who was heard of, and when. Heartbeat age alone is a poor test: consumers of the queue decide beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

_MISSED = 2.5  # periods without a heartbeat before somebody counts as silent


@dataclass(slots=True)
class Sighting:
    """The last status report of one party."""

    at_s: float
    period_s: float
    idle_since_s: float | None = None  # of the first of consecutive reports that show no work

    def fresh(self, now_s: float) -> bool:
        return self.period_s > 0 and now_s - self.at_s < _MISSED * self.period_s


class Presence:
    """The sightings of this run of the service."""

    def __init__(self) -> None:
        self._seen: dict[UUID, Sighting] = {}

    def saw(self, who: UUID, period_s: float, *, idle: bool = False) -> None:
        now, before = time.time(), self._seen.get(who)
        since = None
        if idle:
            since = before.idle_since_s if before is not None and before.idle_since_s is not None else now
        self._seen[who] = Sighting(now, period_s, since)

    def gone(self, who: UUID) -> None:
        self._seen.pop(who, None)

    def fresh(self, who: UUID) -> bool:
        seen = self._seen.get(who)
        return seen is not None and seen.fresh(time.time())

    def idle_since_s(self, who: UUID) -> float | None:
        """Since when it reports no work; None while it works, or after one idle report only."""
        seen = self._seen.get(who)
        if seen is None or seen.idle_since_s is None or seen.at_s - seen.idle_since_s < seen.period_s / 2:
            return None  # one report, or one more at once after a reconnect: its tasks may be on their way
        return seen.idle_since_s
