"""The scopes there are, the resource server each belongs to, and what they mean to the person who is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from authlib.oauth2.rfc6749.errors import InvalidScopeError

from muster.wire.rest import AUTH_SCOPES, AUTH_SERVER, COMPUTE_SCOPE, COMPUTE_SERVER, PROJECTS_SCOPE

LIMIT_SCOPES: Final = 64  # official clients repeat each scope several times
_VIEW: Final = tuple(
    f"urn:globus:auth:scope:auth.globus.org:{name}"
    for name in ("view_identities", "view_identity_set", "view_consents")
)
SERVER_OF: Final = {COMPUTE_SCOPE: COMPUTE_SERVER, **dict.fromkeys((*AUTH_SCOPES, *_VIEW), AUTH_SERVER)}
MEANING: Final = {
    COMPUTE_SCOPE: "Manage endpoints, and run functions on them as you",
    "openid": "Know who you are",
    "profile": "Know your name and user name",
    "email": "Know your e-mail address",
    PROJECTS_SCOPE: "Manage your projects and authentication policies",
    **dict.fromkeys(_VIEW, "Look up identities"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The scopes of one request that belong to one resource server."""

    server: str
    scopes: tuple[str, ...]

    @property
    def scope(self) -> str:
        return " ".join(self.scopes)


def by_server(requested: str) -> list[Wanted]:
    """Each scope once, grouped by resource server, compute first; InvalidScopeError for one that does not exist."""
    asked = requested.split()
    if not asked or len(asked) > LIMIT_SCOPES:
        raise InvalidScopeError("Name the scopes you need, at least one.")
    for scope in asked:
        if scope not in SERVER_OF:
            raise InvalidScopeError(f"There is no scope {scope[:200]!a} here.")
    unique = dict.fromkeys(asked)
    groups = {server: tuple(s for s in unique if SERVER_OF[s] == server) for server in (COMPUTE_SERVER, AUTH_SERVER)}
    return [Wanted(server, scopes) for server, scopes in groups.items() if scopes]


def meanings(requested: str) -> list[str]:
    """What a consent page says, each sentence once."""
    return list(dict.fromkeys(MEANING[scope] for scope in requested.split() if scope in MEANING))
