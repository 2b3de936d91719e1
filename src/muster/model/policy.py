"""An authentication policy: which identities, how recently proved."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from uuid import UUID

from muster.model.identity import Principal


@dataclass(frozen=True, slots=True)
class Policy:
    """Domains that may satisfy it, domains that may not, and the age of the session (seed: Authentication Policies)."""

    id: UUID
    project: UUID
    name: str
    description: str = ""
    include: tuple[str, ...] | None = None  # wildcards as in `*.edu`; None: any domain
    exclude: tuple[str, ...] = ()
    session_age_s: int | None = None
    high_assurance: bool = False

    def refusal(self, caller: Principal, now_s: float) -> str | None:
        """Why this caller does not satisfy it, for the caller to read; None when they do."""
        fit = [i for i in caller.identities if self._admits(i.domain.lower())]
        if not fit:
            return "none of your linked identities is from a permitted domain"
        if self.session_age_s is not None:
            newest = max((i.last_authentication_s or 0) for i in fit)
            if now_s - newest > self.session_age_s:
                return f"your last login is older than {self.session_age_s} seconds"
        return None

    def _admits(self, domain: str) -> bool:
        if any(fnmatchcase(domain, pattern.lower()) for pattern in self.exclude):
            return False
        return self.include is None or any(fnmatchcase(domain, pattern.lower()) for pattern in self.include)
