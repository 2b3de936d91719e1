"""The authorization endpoint: login and consent on one page, then a code for exactly the registered address."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import msgspec
from authlib.oauth2.rfc6749.errors import InvalidRequestError, OAuth2Error
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from muster.errors import MusterError
from muster.identity.approval import Approval, Decision
from muster.identity.clients import Clients, redirects_to
from muster.identity.forms import read_form, read_query
from muster.identity.logins import Demands, Logins, Proof
from muster.identity.pending import CODE_S, CodeData
from muster.identity.scopes import by_server, meanings
from muster.identity.secret import digest, new_secret
from muster.identity.sessions import Sessions
from muster.store.contract import Grant, IdentityStore, OAuthClient
from muster.wire.rest import status_of

CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
LIMIT_STATE: Final = 2048
LIMIT_LABEL: Final = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked authorization request."""

    client: OAuthClient
    redirect_uri: str
    query: Mapping[str, str]
    demands: Demands

    @property
    def scope(self) -> str:
        return " ".join(scope for wanted in by_server(self.query["scope"]) for scope in wanted.scopes)

    def answer(self, **values: str) -> Response:
        """Back to the client, which gets its `state` as it sent it."""
        if self.query.get("state"):
            values["state"] = self.query["state"]
        joint = "&" if urlsplit(self.redirect_uri).query else "?"
        return RedirectResponse(f"{self.redirect_uri}{joint}{urlencode(values)}", 303, {"Cache-Control": "no-store"})


class AuthorizePages:
    """GET shows, POST decides."""

    def __init__(
        self, store: IdentityStore, clients: Clients, logins: Logins, sessions: Sessions, approval: Approval
    ) -> None:
        self._store = store
        self._clients = clients
        self._logins = logins
        self._sessions = sessions
        self._approval = approval

    async def __call__(self, request: Request) -> Response:
        try:
            query = read_query(request)
            client, redirect_uri = await self._addressee(query)
        except OAuth2Error as refusal:  # never redirect to an address that is not known to be the client's
            return self._sessions.page(request, "message.html", status=400, title="Refused", text=_text(refusal))
        try:
            asked = self._checked(client, redirect_uri, query)
        except OAuth2Error as refusal:
            return Asked(client, redirect_uri, query, Demands()).answer(
                error=refusal.error, error_description=_text(refusal)
            )
        try:
            return await (self._decide(request, asked) if request.method == "POST" else self._ask(request, asked))
        except OAuth2Error as refusal:
            return asked.answer(error=refusal.error, error_description=_text(refusal))
        except MusterError as error:
            return self._sessions.page(
                request, "message.html", status=status_of(error), title="Refused", text=error.message()
            )

    async def _addressee(self, query: Mapping[str, str]) -> tuple[OAuthClient, str]:
        client = await self._clients.find(query.get("client_id", ""))
        if client is None:
            raise InvalidRequestError("There is no client with this client_id.")
        redirect_uri = query.get("redirect_uri", "")
        if not redirects_to(client, redirect_uri):
            raise InvalidRequestError("The redirect_uri is not registered for this client.")
        return client, redirect_uri

    @staticmethod
    def _checked(client: OAuthClient, redirect_uri: str, query: Mapping[str, str]) -> Asked:
        if query.get("response_type") != "code":
            raise InvalidRequestError("The only response_type here is `code`.")
        if query.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(query.get("code_challenge", "")):
            raise InvalidRequestError("PKCE is required: send code_challenge with the method S256.")
        if len(query.get("state", "")) > LIMIT_STATE or len(query.get("nonce", "")) > LIMIT_STATE:
            raise InvalidRequestError("state and nonce have a limit.")
        if "none" in query.get("prompt", "").split():
            raise InvalidRequestError("Every login here is shown to a person: prompt=none is not possible.")
        by_server(query.get("scope", ""))
        return Asked(client, redirect_uri, query, Demands.of(query))

    async def _ask(self, request: Request, asked: Asked) -> Response:
        proof, why = await self._approval.standing(request, asked.demands)
        return self._page(request, asked, proof, Decision(told=why))

    async def _decide(self, request: Request, asked: Asked) -> Response:
        form = await read_form(request)
        self._sessions.check(request, form, request.url.query)
        decision = await self._approval.read(request, form, asked.demands)
        if decision.denied:
            return asked.answer(error="access_denied", error_description="The login was refused.")
        if decision.switch:
            response: Response = RedirectResponse(f"{request.url.path}?{request.url.query}", 303)
            await self._sessions.end(request, response)
            return response
        if decision.proof is None:
            return self._page(request, asked, None, decision)
        response = asked.answer(code=await self._new_code(asked, decision.proof))
        if decision.fresh:
            await self._sessions.begin(response, decision.proof)
        return response

    async def _new_code(self, asked: Asked, proof: Proof) -> str:
        code, now_s = new_secret(size_bytes=24), time.time()
        data = CodeData(
            redirect_uri=asked.redirect_uri,
            challenge=asked.query["code_challenge"],
            state=asked.query.get("state", ""),
            nonce=asked.query.get("nonce"),
        )
        grant = Grant(
            digest=digest(code),
            kind="code",
            client=asked.client.id,
            identity=(await self._logins.of_record(proof.identity)).id,
            scope=asked.scope,
            expires_at_s=now_s + CODE_S,
            issued_at_s=now_s,
            family=uuid4(),
            authenticated_at_s=proof.at_s,
            data=msgspec.json.encode(data).decode(),
        )
        await self._store.add_grant(grant)
        return code

    def _page(self, request: Request, asked: Asked, proof: Proof | None, decision: Decision) -> Response:
        parts = urlsplit(asked.redirect_uri)
        response = self._sessions.page(
            request,
            "approve.html",
            request.url.query,
            status=decision.status,
            goes_to=f"{parts.scheme}://{parts.netloc}",
            action=f"{request.url.path}?{request.url.query}",
            client=asked.client.name,
            label=asked.query.get("prefill_named_grant", "")[:LIMIT_LABEL],
            meanings=meanings(asked.scope),
            message=asked.demands.message,
            told=decision.told,
            who=proof.identity.username if proof else None,
            suggested=_suggested(asked.demands),
            device_code=None,
        )
        if decision.retry_after_s:
            response.headers["Retry-After"] = str(decision.retry_after_s)
        return response


async def show_code(request: Request, sessions: Sessions) -> Response:
    """The address the code is sent to when there is no other: the person copies it to the terminal."""
    query = read_query(request)
    code = query.get("code", "")
    if not CODE.fullmatch(code):
        text = query.get("error_description") or "There is no code here. Start again from your program."
        return sessions.page(request, "message.html", status=400, title="No code", text=text[:500])
    return sessions.page(request, "code.html", code=code)


def _suggested(demands: Demands) -> str:
    """A demanded user name may stand in the form already; ids may not be turned into names for a stranger."""
    return next((name[:200] for name in demands.identities if "@" in name), "")


def _text(refusal: Any) -> str:
    return str(refusal.get_error_description() or refusal.error)
