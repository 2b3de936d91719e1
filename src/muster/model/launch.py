"""One attempt to bring one user endpoint up; its states are data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID


class LaunchState(StrEnum):
    """Where the attempt is. READY means it checked in; REFUSED, FAILED and EXITED are final."""

    REQUESTED = "requested"
    READY = "ready"
    REFUSED = "refused"  # the site said no: asking again changes nothing
    FAILED = "failed"  # it could not start, or died young
    EXITED = "exited"


_NEXT = {
    LaunchState.REQUESTED: {LaunchState.READY, LaunchState.REFUSED, LaunchState.FAILED, LaunchState.EXITED},
    LaunchState.READY: {LaunchState.READY, LaunchState.EXITED, LaunchState.FAILED},
}


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt; `failures` counts the quick failures before it (the breaker reads it)."""

    user_endpoint: UUID
    state: LaunchState = LaunchState.REQUESTED
    reason: str = ""
    requested_at_s: float = 0.0
    failures: int = 0

    def to(self, state: LaunchState, reason: str = "") -> Launch:
        if state not in _NEXT.get(self.state, set()):
            raise ValueError(f"launch of {self.user_endpoint} cannot go from {self.state} to {state}")
        return replace(self, state=state, reason=reason)
