"""Where access tokens come from: a service account's secret, or what a person's login left behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final, Protocol

from muster.errors import LoginNeeded
from muster.rest.connection import Http
from muster.rest.oauth import IssuedToken, OAuthRefused, ask_for_tokens
from muster.rest.token_file import KeptToken, ServiceTokens, TokenFile
from muster.wire.rest import AUTH_SERVER, COMPUTE_SCOPE, COMPUTE_SERVER, PROJECTS_SCOPE

MARGIN_S: Final = 60.0  # renewed that long before the end
SETTLED_S: Final = 5.0  # a token renewed less than that ago is not renewed again: many threads were refused at once

SCOPES: Final = {COMPUTE_SERVER: COMPUTE_SCOPE, AUTH_SERVER: f"openid {PROJECTS_SCOPE}"}


class TokenSource(Protocol):
    """Anything that can answer with a token which should work now."""

    def token(self, resource_server: str, force: bool = False) -> str:
        """With `force` the last one was refused: renew it. LoginNeeded when only a person can help."""


class ClientCredentials:
    """A service account. Nothing is stored; every process asks for its own token."""

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self._http = Http(url)
        self._pair = (client_id, client_secret)
        self._kept: dict[str, KeptToken] = {}
        self._lock = threading.Lock()

    def token(self, resource_server: str, force: bool = False) -> str:
        with self._lock:
            kept = self._kept.get(resource_server)
            if kept is None or _stale(kept, force):
                kept = self._kept[resource_server] = self._ask(resource_server)
            return kept.access_token

    def _ask(self, resource_server: str) -> KeptToken:
        form = {"grant_type": "client_credentials", "scope": SCOPES[resource_server]}
        try:
            response = ask_for_tokens(self._http, form, self._pair)
        except OAuthRefused as refused:
            raise LoginNeeded(why=f"MUSTER_CLIENT_ID {self._pair[0]}: {refused.facts.get('why')}") from None
        return kept_from(response)


class StoredTokens:
    """The tokens of `muster login`, renewed by whichever process notices first."""

    def __init__(self, url: str, home: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = Http(self.url)
        self._file = TokenFile(home)
        self._last: ServiceTokens | None = None
        self._lock = threading.Lock()

    def token(self, resource_server: str, force: bool = False) -> str:
        with self._lock:
            kept = self._held(resource_server)
            if kept is None or _stale(kept, force):
                with self._file.locked():
                    kept = self._renewed(resource_server, force)
            return kept.access_token

    def _held(self, resource_server: str) -> KeptToken | None:
        if self._last is None:
            self._last = self._file.read(self.url)
        return self._last.servers.get(resource_server) if self._last else None

    def _renewed(self, resource_server: str, force: bool) -> KeptToken:
        """Under the lock: another process may have renewed it while we waited."""
        before = self._held(resource_server)
        self._last = self._file.read(self.url)
        kept = self._held(resource_server)
        if self._last is None or kept is None:
            raise LoginNeeded(why=f"there is no token for {self.url}")
        replaced = before is not None and before.access_token != kept.access_token  # then it is not the refused one
        if not _stale(kept, force and not replaced):
            return kept
        if kept.refresh_token is None:
            raise LoginNeeded(why="your token has ended and cannot be renewed")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": kept.refresh_token,
            "client_id": self._last.client_id,
        }
        fresh = kept_from(ask_for_tokens(self._http, form))
        self._last.servers[resource_server] = fresh
        self._file.write(self.url, self._last)
        return fresh


def kept_from(issued: IssuedToken) -> KeptToken:
    now_s = time.time()
    return KeptToken(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        scope=issued.scope,
        expires_at_s=now_s + issued.expires_in,
        renewed_at_s=now_s,
    )


def default_tokens(url: str) -> TokenSource:
    """MUSTER_CLIENT_ID and MUSTER_CLIENT_SECRET when both are set, else the token file."""
    client_id, secret = os.environ.get("MUSTER_CLIENT_ID"), os.environ.get("MUSTER_CLIENT_SECRET")
    if client_id and secret:
        return ClientCredentials(url, client_id, secret)
    return StoredTokens(url)


def _stale(kept: KeptToken, force: bool) -> bool:
    now_s = time.time()
    if force:
        return not 0 <= now_s - kept.renewed_at_s < SETTLED_S
    return now_s > kept.expires_at_s - MARGIN_S
