"""How long functions take, learned from their last calls: decides how many calls travel together."""

from __future__ import annotations

from collections import OrderedDict

_KNOWN_FUNCTIONS = 1000
UNKNOWN_NS = 10**18


class Pace:
    """Remembers a cautious duration for each function: quick to believe in slowness, slow to believe in speed."""

    def __init__(self) -> None:
        self._ns: OrderedDict[bytes, float] = OrderedDict()
        self.mean_ns: float | None = None  # of all functions together

    def saw(self, function: bytes, duration_ns: int) -> None:
        """One call of this function took so long."""
        old = self._ns.get(function)
        if old is None:
            self._ns[function] = duration_ns
            if len(self._ns) > _KNOWN_FUNCTIONS:
                self._ns.popitem(last=False)
        else:
            self._ns[function] = old + (duration_ns - old) * (0.5 if duration_ns > old else 0.1)
        mean = self.mean_ns
        self.mean_ns = float(duration_ns) if mean is None else mean + (duration_ns - mean) * 0.05

    def expect_ns(self, function: bytes) -> float:
        """What the next call of it will take; as good as for ever while nothing is known."""
        return self._ns.get(function, UNKNOWN_NS)

    def room(self, workers: int, taken: int) -> int:
        """Calls worth holding for these workers: a tenth of a second of work, at least two for each, at most 2,000."""
        each = 2 if self.mean_ns is None else min(1000, max(2, int(1e8 / max(self.mean_ns, 1.0))))
        return max(0, min(2000, each * workers) - taken) if each > 2 else max(0, 2 * workers - taken)
