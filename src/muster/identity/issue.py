"""Issues tokens: one document per resource server, the first at top level and the rest beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from muster.identity.bearer import Bearer, TokenData
from muster.identity.documents import Documents
from muster.identity.keys import SigningKey
from muster.identity.scopes import by_server
from muster.identity.secret import ACCESS, REFRESH, digest, new_secret
from muster.store.contract import Grant, IdentityStore, OAuthClient

ACCESS_S: Final = 48 * 3600
REFRESH_S: Final = 180 * 86400  # since the last use
PURGE_EVERY_S: Final = 600.0
KEPT_AFTER_END_S: Final = 86400.0  # so that "expired" can be told from "unknown"


@dataclass(frozen=True, slots=True)
class Entitled:
    """On whose behalf tokens are issued, to whom, and since when that person was proved to be it."""

    client: OAuthClient
    identity: UUID
    scope: str
    authenticated_at_s: float
    family: UUID
    renewable: bool
    nonce: str | None = None


class Issuer:
    """The only place where access and refresh tokens are made."""

    def __init__(
        self, store: IdentityStore, key: SigningKey, bearer: Bearer, documents: Documents, origin: str
    ) -> None:
        self._store = store
        self._key = key
        self._bearer = bearer
        self._documents = documents
        self._origin = origin
        self._purged_at_s = 0.0

    async def issue(self, to: Entitled, spent: Sequence[Grant] = ()) -> dict[str, Any]:
        """A token response; the tokens, and the tombstones of what they were traded for, are stored together."""
        now_s = time.time()
        grants, parts = list(spent), []
        for wanted in by_server(to.scope):
            access, refresh = new_secret(ACCESS), new_secret(REFRESH) if to.renewable else None
            grants.append(self._grant(to, access, "access", wanted.scope, wanted.server, now_s + ACCESS_S, now_s))
            part: dict[str, Any] = {
                "access_token": access,
                "scope": wanted.scope,
                "expires_in": ACCESS_S,
                "token_type": "Bearer",
                "resource_server": wanted.server,
            }
            if refresh is not None:
                part["refresh_token"] = refresh
                until_s = now_s + REFRESH_S
                grants.append(self._grant(to, refresh, "refresh", wanted.scope, wanted.server, until_s, now_s))
            parts.append(part)
        await self._store.add_grant(*grants)
        await self._purge(now_s)
        answer = {**parts[0], "other_tokens": parts[1:]}
        if "openid" in to.scope.split():
            answer["id_token"] = await self._id_token(to, now_s)
        return answer

    @staticmethod
    def _grant(to: Entitled, secret: str, kind: str, scope: str, server: str, until_s: float, now_s: float) -> Grant:
        return Grant(
            digest=digest(secret),
            kind=kind,
            client=to.client.id,
            identity=to.identity,
            scope=scope,
            expires_at_s=until_s,
            issued_at_s=now_s,
            family=to.family,
            authenticated_at_s=to.authenticated_at_s,
            data=msgspec.json.encode(TokenData(server=server)).decode(),
        )

    async def _id_token(self, to: Entitled, now_s: float) -> str:
        stand_in = self._grant(to, "", "login", to.scope, "", now_s, now_s)
        person = await self._bearer.person(stand_in)
        claims = {
            **self._documents.userinfo(person),
            "iss": self._origin,
            "aud": str(to.client.id),
            "iat": int(now_s),
            "nbf": int(now_s),
            "exp": int(now_s) + ACCESS_S,
            "auth_time": int(to.authenticated_at_s),
        }
        if to.nonce:
            claims["nonce"] = to.nonce
        return self._key.sign(claims)

    async def _purge(self, now_s: float) -> None:
        if now_s - self._purged_at_s > PURGE_EVERY_S:
            self._purged_at_s = now_s
            await self._store.purge_grants(now_s - KEPT_AFTER_END_S)
