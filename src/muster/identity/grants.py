"""The token endpoint: one function per grant, in an explicit table."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import msgspec
from authlib.oauth2.rfc6749.errors import (
    AccessDeniedError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    UnauthorizedClientError,
    UnsupportedGrantTypeError,
)
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oauth2.rfc8628.errors import AuthorizationPendingError, ExpiredTokenError, SlowDownError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from muster.identity.bearer import Bearer
from muster.identity.clients import Clients
from muster.identity.forms import read_form
from muster.identity.issue import Entitled, Issuer
from muster.identity.logins import Logins
from muster.identity.pending import APPROVED, DENIED, CodeData, DeviceData, Polls
from muster.identity.secret import digest
from muster.store.contract import Grant, IdentityStore, OAuthClient

VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}

Form = Mapping[str, str]


class TokenEndpoint:
    """Trades a proof for tokens."""

    def __init__(self, store: IdentityStore, clients: Clients, issuer: Issuer, bearer: Bearer, logins: Logins) -> None:
        self._store = store
        self._clients = clients
        self._issuer = issuer
        self._bearer = bearer
        self._logins = logins
        self._polls = Polls()

    async def __call__(self, request: Request) -> Response:
        form = await read_form(request)
        client = await self._clients.authenticate(request, form)
        grant = GRANTS.get(form.get("grant_type", ""))
        if grant is None:
            raise UnsupportedGrantTypeError(form.get("grant_type", "")[:100])
        return JSONResponse(await grant(self, client, form), headers=NO_STORE)

    async def client_credentials(self, client: OAuthClient, form: Form) -> dict[str, Any]:
        if client.secret_sha256 is None or client.identity is None:
            raise UnauthorizedClientError("Only a client with a secret can act for itself.")
        to = Entitled(
            client=client,
            identity=client.identity,
            scope=form.get("scope", ""),
            authenticated_at_s=(await self._logins.proved(client.identity)).at_s,
            family=uuid4(),
            renewable=False,
        )
        return await self._issuer.issue(to)

    async def authorization_code(self, client: OAuthClient, form: Form) -> dict[str, Any]:
        code = await self._taken(form.get("code", ""), "code", client)
        data = msgspec.json.decode(code.data, type=CodeData)
        if form.get("redirect_uri") != data.redirect_uri:
            raise InvalidGrantError("The redirect_uri is not the one the code was asked with.")
        verifier = form.get("code_verifier", "")
        if not VERIFIER.fullmatch(verifier):
            raise InvalidGrantError("The code_verifier is missing or malformed.")
        if not hmac.compare_digest(create_s256_code_challenge(verifier), data.challenge):
            raise InvalidGrantError("The code_verifier does not fit the code.")
        answer = await self._issuer.issue(_entitled(client, code, nonce=data.nonce), [_tombstone(code)])
        return {**answer, "state": data.state}

    async def refresh_token(self, client: OAuthClient, form: Form) -> dict[str, Any]:
        secret = form.get("refresh_token", "")
        held = await self._store.grant(digest(secret), "refresh")
        if held is not None and not set(form.get("scope", held.scope).split()) <= set(held.scope.split()):
            raise InvalidScopeError("A renewed token cannot have more scopes than the one before.")
        taken = await self._taken(secret, "refresh", client)
        return await self._issuer.issue(_entitled(client, taken), [_tombstone(taken)])

    async def device_code(self, client: OAuthClient, form: Form) -> dict[str, Any]:
        key = digest(form.get("device_code", ""))
        device = await self._store.grant(key, "device")
        if device is None or device.client != client.id:
            raise InvalidGrantError("Unknown device code, or one that was used.")
        if device.expires_at_s <= time.time():
            raise ExpiredTokenError("The code was not approved in time.")
        state = msgspec.json.decode(device.data, type=DeviceData).state
        if state == DENIED:
            await self._store.take_grant(key, "device")
            raise AccessDeniedError("The login was refused.")
        if state != APPROVED:
            if self._polls.too_soon(key):
                raise SlowDownError("Ask less often.")
            raise AuthorizationPendingError("Nobody has approved the code yet.")
        taken = await self._store.take_grant(key, "device")
        if taken is None:
            raise InvalidGrantError("Unknown device code, or one that was used.")
        return await self._issuer.issue(_entitled(client, taken), [_tombstone(taken)])

    async def _taken(self, secret: str, kind: str, client: OAuthClient) -> Grant:
        """Use it up. A second use means that two hold the same secret: then the whole family ends."""
        key = digest(secret)
        held = await self._store.grant(key, kind)
        if held is not None and held.client != client.id:
            raise InvalidGrantError("That was issued to another client.")
        taken = await self._store.take_grant(key, kind) if held is not None else None
        if taken is None:
            await self._end_family_of(key)
            raise InvalidGrantError("Unknown, revoked, or used before; log in again.")
        if taken.expires_at_s <= time.time():
            raise InvalidGrantError("It has expired; log in again.")
        return taken

    async def _end_family_of(self, key: bytes) -> None:
        spent = await self._store.grant(key, "spent")
        if spent is not None and spent.family is not None:
            await self._store.revoke_family(spent.family)
            self._bearer.forget(family=spent.family)


async def revoke(request: Request, store: IdentityStore, clients: Clients, bearer: Bearer) -> Response:
    """RFC 7009: afterwards the token does not work; a refresh token takes the whole login along."""
    form = await read_form(request)
    client = await clients.authenticate(request, form)
    if not form.get("token"):
        raise InvalidRequestError("Name the token to revoke.")
    key = digest(form["token"])
    access, refresh = await store.grant(key, "access"), await store.grant(key, "refresh")
    if access is not None and access.client == client.id:
        await store.take_grant(key, "access")
        bearer.forget(key)
    if refresh is not None and refresh.client == client.id:
        await store.take_grant(key, "refresh")
        if refresh.family is not None:
            await store.revoke_family(refresh.family)
            bearer.forget(family=refresh.family)
    return JSONResponse({"active": False}, headers=NO_STORE)


async def introspect(request: Request, store: IdentityStore, clients: Clients, bearer: Bearer) -> Response:
    """RFC 7662, for confidential clients and the tokens that were issued to them; of others nothing is said."""
    form = await read_form(request)
    client = await clients.authenticate(request, form)
    if client.secret_sha256 is None:
        raise UnauthorizedClientError("Only a client with a secret may ask.")
    grant = await store.grant(digest(form.get("token", "")), "access")
    if grant is None or grant.client != client.id or grant.expires_at_s <= time.time():
        return JSONResponse({"active": False}, headers=NO_STORE)
    person = await bearer.person(grant)
    document = {
        "active": True,
        "scope": grant.scope,
        "client_id": str(client.id),
        "sub": str(person.id),
        "username": person.identity.username,
        "aud": sorted(person.issued_for),
        "iat": int(grant.issued_at_s),
        "exp": int(grant.expires_at_s),
        "token_type": "Bearer",
    }
    return JSONResponse(document, headers=NO_STORE)


def _entitled(client: OAuthClient, grant: Grant, nonce: str | None = None) -> Entitled:
    if grant.identity is None:
        raise InvalidGrantError("Nobody has approved this.")
    return Entitled(
        client=client,
        identity=grant.identity,
        scope=grant.scope,
        authenticated_at_s=grant.authenticated_at_s or grant.issued_at_s,
        family=grant.family or uuid4(),
        renewable=True,
        nonce=nonce,
    )


def _tombstone(grant: Grant) -> Grant:
    """What remains of a used code or refresh token, so that its second use is noticed."""
    return Grant(
        digest=grant.digest,
        kind="spent",
        client=grant.client,
        identity=grant.identity,
        scope=grant.scope,
        expires_at_s=max(grant.expires_at_s, time.time() + 86400),
        issued_at_s=grant.issued_at_s,
        family=grant.family,
    )


DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
GRANTS: Final[dict[str, Callable[[TokenEndpoint, OAuthClient, Form], Awaitable[dict[str, Any]]]]] = {
    "client_credentials": TokenEndpoint.client_credentials,
    "authorization_code": TokenEndpoint.authorization_code,
    "refresh_token": TokenEndpoint.refresh_token,
    DEVICE_GRANT: TokenEndpoint.device_code,
}
