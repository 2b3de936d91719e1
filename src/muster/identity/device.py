"""The device login (RFC 8628): a short code travels by hand from a terminal to any browser."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec
from authlib.oauth2.rfc6749.errors import UnauthorizedClientError
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from muster.errors import MusterError, Outage
from muster.identity.approval import Approval, Decision
from muster.identity.attempts import Attempts, address_key
from muster.identity.clients import Clients
from muster.identity.forms import read_form, read_query
from muster.identity.logins import Demands, Logins, Proof
from muster.identity.pending import (
    APPROVED,
    DENIED,
    DEVICE_S,
    PENDING,
    POLL_S,
    DeviceData,
    new_user_code,
    plain_user_code,
    shown_user_code,
)
from muster.identity.scopes import by_server, meanings
from muster.identity.secret import digest, new_secret
from muster.identity.sessions import Sessions
from muster.store.contract import Grant, IdentityStore
from muster.wire.rest import status_of

PATH = "/device"
GUESSES = 20
STARTS = 300
WINDOW_S = 900.0


class TooManyStarts(Outage):
    """Somebody starts logins that nobody finishes."""

    code = "TOO_MANY_ATTEMPTS"
    public = "Too many logins were started from this address. Try again in {wait_s} seconds."


class DeviceLogin:
    """Starts device logins, and lets people approve them."""

    def __init__(
        self,
        store: IdentityStore,
        clients: Clients,
        logins: Logins,
        sessions: Sessions,
        approval: Approval,
        origin: str,
    ) -> None:
        self._store = store
        self._clients = clients
        self._logins = logins
        self._sessions = sessions
        self._approval = approval
        self._origin = origin
        self._guesses = Attempts(GUESSES, WINDOW_S)
        self._starts = Attempts(STARTS, WINDOW_S)  # anybody may start one, and each is a row for a day

    async def start(self, request: Request) -> Response:
        """For public clients: two codes, one for the program and one for the person."""
        address = address_key(request.client.host if request.client else "")
        wait_s = self._starts.wait_s(address)
        if wait_s > 0:
            raise TooManyStarts(wait_s=int(wait_s) + 1)
        self._starts.failed(address)
        form = await read_form(request)
        client = await self._clients.authenticate(request, form)
        if client.secret_sha256 is not None:
            raise UnauthorizedClientError("This client acts for itself; it has client credentials.")
        scope = " ".join(scope for wanted in by_server(form.get("scope", "")) for scope in wanted.scopes)
        secret, user_code, now_s = new_secret(), new_user_code(), time.time()
        grant = Grant(
            digest=digest(secret),
            kind="device",
            client=client.id,
            identity=None,
            scope=scope,
            expires_at_s=now_s + DEVICE_S,
            issued_at_s=now_s,
            family=uuid4(),
            data=msgspec.json.encode(DeviceData(user_code=user_code)).decode(),
        )
        await self._store.add_grant(grant)
        answer: dict[str, Any] = {
            "device_code": secret,
            "user_code": shown_user_code(user_code),
            "verification_uri": self._origin + PATH,
            "verification_uri_complete": f"{self._origin}{PATH}?user_code={shown_user_code(user_code)}",
            "expires_in": DEVICE_S,
            "interval": POLL_S,
        }
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    async def page(self, request: Request) -> Response:
        """GET asks for the code, then shows what it would allow; POST decides."""
        try:
            return await self._page(request)
        except MusterError as error:
            return self._sessions.page(
                request, "message.html", status=status_of(error), title="Refused", text=error.message()
            )

    async def _page(self, request: Request) -> Response:
        typed = read_query(request).get("user_code", "")
        if not typed:
            return self._sessions.page(request, "device.html", told="", path=PATH)
        pending = await self._pending(request, typed)
        if pending is None:
            told = "There is no such code, or its time is over. Start again from your program."
            return self._sessions.page(request, "device.html", status=404, told=told, path=PATH)
        if request.method == "POST":
            return await self._decide(request, pending)
        proof, why = await self._approval.standing(request, Demands())
        return await self._form(request, pending, proof, Decision(told=why))

    async def _pending(self, request: Request, typed: str) -> Grant | None:
        address = address_key(request.client.host if request.client else "")
        code = plain_user_code(typed) if self._guesses.wait_s(address) <= 0 else ""
        grant = await self._store.device_by_user_code(code) if code else None
        if grant is None or grant.expires_at_s <= time.time() or _data(grant).state != PENDING:
            self._guesses.failed(address)
            return None
        return grant

    async def _decide(self, request: Request, pending: Grant) -> Response:
        form = await read_form(request)
        self._sessions.check(request, form, _data(pending).user_code)
        decision = await self._approval.read(request, form, Demands())
        if decision.switch:
            response: Response = RedirectResponse(f"{PATH}?{request.url.query}", 303)
            await self._sessions.end(request, response)
            return response
        if decision.denied:
            await self._settle(pending, DENIED)
            return self._sessions.page(request, "message.html", title="Refused", text="The device was not let in.")
        if decision.proof is None:
            return await self._form(request, pending, None, decision)
        await self._settle(pending, APPROVED, decision.proof)
        text = "Your program goes on by itself. You can close this page."
        response = self._sessions.page(request, "message.html", title="Done", text=text)
        if decision.fresh:
            await self._sessions.begin(response, decision.proof)
        return response

    async def _settle(self, pending: Grant, state: str, proof: Proof | None = None) -> None:
        data = msgspec.json.encode(DeviceData(user_code=_data(pending).user_code, state=state)).decode()
        identity = (await self._logins.of_record(proof.identity)).id if proof else None
        settled = replace(pending, identity=identity, authenticated_at_s=proof.at_s if proof else None, data=data)
        await self._store.replace_grant(settled)

    async def _form(self, request: Request, pending: Grant, proof: Proof | None, decision: Decision) -> Response:
        code = _data(pending).user_code
        client = await self._clients.find(str(pending.client))
        response = self._sessions.page(
            request,
            "approve.html",
            code,
            status=decision.status,
            action=f"{PATH}?user_code={shown_user_code(code)}",
            client=client.name if client else "A program",
            label="",
            meanings=meanings(pending.scope),
            message="",
            told=decision.told,
            who=proof.identity.username if proof else None,
            suggested="",
            device_code=shown_user_code(code),
        )
        if decision.retry_after_s:
            response.headers["Retry-After"] = str(decision.retry_after_s)
        return response


def _data(grant: Grant) -> DeviceData:
    return msgspec.json.decode(grant.data, type=DeviceData)
