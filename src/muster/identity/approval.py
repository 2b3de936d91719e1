"""One form, two uses: a person proves who they are and says yes or no, for a browser's request or for a device's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from muster.errors import Outage
from muster.identity.attempts import address_key
from muster.identity.logins import Demands, Logins, Proof
from muster.identity.sessions import Sessions

LIMIT_USERNAME = 256


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a form: a proof when the person said yes, or what to tell them, or a plain no."""

    proof: Proof | None = None
    fresh: bool = False  # proved by this very form: begin a session
    denied: bool = False
    switch: bool = False
    told: str = ""
    status: int = 200
    retry_after_s: int = 0


class Approval:
    """Reads such a form."""

    def __init__(self, logins: Logins, sessions: Sessions) -> None:
        self._logins = logins
        self._sessions = sessions

    async def standing(self, request: Request, demands: Demands) -> tuple[Proof | None, str]:
        """The session, if it is good enough for this request; else why it is not."""
        proof = await self._sessions.current(request)
        if proof is None:
            return None, ""
        if demands.fresh:
            return None, "Please log in again: a fresh login was asked for."
        unmet = await self._logins.unmet(demands, proof)
        return (proof, "") if unmet is None else (None, unmet)

    async def read(self, request: Request, form: Mapping[str, str], demands: Demands) -> Decision:
        """The form must have passed `Sessions.check` before."""
        action = form.get("action", "")
        if action in {"deny", "switch"}:
            return Decision(denied=action == "deny", switch=action == "switch")
        if action == "allow":
            proof, why = await self.standing(request, demands)
            return Decision(proof=proof, told=why or "Your session has ended. Please log in.")
        if action == "login":
            return await self._log_in(request, form, demands)
        return Decision(told="That form is not one of ours.", status=400)

    async def _log_in(self, request: Request, form: Mapping[str, str], demands: Demands) -> Decision:
        username, password = form.get("username", "").strip(), form.get("password", "")
        if not 0 < len(username) <= LIMIT_USERNAME or not password:
            return Decision(told="Enter your user name and your password.", status=400)
        address = address_key(request.client.host if request.client else "")
        try:
            proof = await self._logins.with_password(username, password, address)
        except Outage as problem:
            wait_s = problem.facts.get("wait_s")
            return Decision(
                told=problem.message(),
                status=503 if wait_s is None else 429,
                retry_after_s=wait_s if isinstance(wait_s, int) else 5,
            )
        if proof is None:
            return Decision(told="User name and password do not fit.", status=403)
        unmet = await self._logins.unmet(demands, proof)
        if unmet is not None:
            return Decision(told=unmet, status=403)
        return Decision(proof=proof, fresh=True)
