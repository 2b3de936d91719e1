"""The login of a person at a terminal: with a code to paste, or by a code typed in on another device."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from muster.errors import LoginNeeded
from muster.rest.connection import Http
from muster.rest.oauth import (
    DEVICE_PATH,
    REVOKE_PATH,
    OAuthRefused,
    TokenResponse,
    ask_for_tokens,
    post_form,
    read_answer,
)
from muster.rest.token_file import ServiceTokens, TokenFile
from muster.rest.tokens import kept_from
from muster.wire.rest import COMPUTE_SCOPE, NATIVE_CLIENT, PROJECTS_SCOPE

CODE_PATH: Final = "/v2/web/auth-code"
SCOPE: Final = f"{COMPUTE_SCOPE} openid {PROJECTS_SCOPE}"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"

Print = Callable[[str], None]


def can_ask() -> bool:
    """Whether a login would help: somebody sits there, and no service account was named instead."""
    return sys.stdin.isatty() and not os.environ.get("MUSTER_CLIENT_SECRET")


class DeviceStart(msgspec.Struct, kw_only=True):
    """The answer to the start of a device login (RFC 8628)."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: int = 5
    verification_uri_complete: str | None = None


class Login:
    """Logs a person in at one service and keeps the tokens; asks and tells through two functions."""

    def __init__(self, url: str, home: Path | None = None, *, tell: Print | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = Http(self.url)
        self._file = TokenFile(home)
        self._tell = tell or _to_stderr
        self._client_id = os.environ.get("MUSTER_CLIENT_ID") or NATIVE_CLIENT

    def with_code(self, read: Callable[[], str] | None = None, demands: Mapping[str, Any] | None = None) -> None:
        """Print the address to open, wait for the code, keep the tokens. `demands`: a GARE's parameters."""
        verifier = secrets.token_urlsafe(48)
        address = self._authorize_url(verifier, demands or {})
        self._tell("Please authenticate with Muster here:")
        self._tell("-" * 36)
        self._tell(address)
        self._tell("-" * 36)
        self._tell("")
        code = (read or _read_code)().strip()
        if not code:
            raise LoginNeeded(why="no authorization code was entered")
        form = {
            "grant_type": "authorization_code",
            "client_id": self._client_id,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": self.url + CODE_PATH,
        }
        self._keep(ask_for_tokens(self._http, form))

    def with_device(self, wait: Callable[[float], None] = time.sleep) -> None:
        """Print a short code to type in anywhere, wait until it was approved, keep the tokens."""
        start: DeviceStart = read_answer(
            post_form(self._http, DEVICE_PATH, {"client_id": self._client_id, "scope": SCOPE}), DeviceStart
        )
        self._tell(f"On any device, open {start.verification_uri} and enter this code: {start.user_code}")
        form = {"grant_type": DEVICE_GRANT, "client_id": self._client_id, "device_code": start.device_code}
        interval_s, end_s = float(start.interval), time.monotonic() + start.expires_in
        while time.monotonic() < end_s:
            wait(interval_s)
            try:
                return self._keep(ask_for_tokens(self._http, form))
            except OAuthRefused as refused:
                if refused.error not in {"authorization_pending", "slow_down"}:
                    raise LoginNeeded(why=str(refused.facts.get("why"))) from refused
                interval_s += 5 * (refused.error == "slow_down")
        raise LoginNeeded(why="the code was not approved in time")

    def logout(self) -> bool:
        """Revoke every token of this service and forget them; False when there were none."""
        with self._file.locked():
            kept = self._file.read(self.url)
            if kept is None:
                return False
            for token in kept.servers.values():
                for secret in filter(None, (token.refresh_token, token.access_token)):
                    form = {"token": secret, "client_id": kept.client_id}
                    read_answer(post_form(self._http, REVOKE_PATH, form), dict)
            self._file.write(self.url, None)
            return True

    def _authorize_url(self, verifier: str, demands: Mapping[str, Any]) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": self._client_id,
            "redirect_uri": self.url + CODE_PATH,
            "scope": SCOPE,
            "state": "_default",
            "response_type": "code",
            "access_type": "offline",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "prefill_named_grant": f"muster on {socket.gethostname()}",
        }
        for name, value in demands.items():
            if (name.startswith("session_") or name == "prompt") and value is not None:
                query[name] = _as_parameter(value)
        return f"{self.url}/v2/oauth2/authorize?{urlencode(query)}"

    def _keep(self, response: TokenResponse) -> None:
        servers = {part.resource_server: kept_from(part) for part in response.parts()}
        fresh = ServiceTokens(client_id=self._client_id, identity_id=_subject(response.id_token), servers=servers)
        with self._file.locked():
            self._file.write(self.url, fresh)


def _as_parameter(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(str(item) for item in value)
    return str(value)


def _subject(id_token: str | None) -> str | None:
    """Who logged in. It came straight from the service over the connection we opened, so nobody else signed it."""
    try:
        body = (id_token or "").split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))).get("sub")
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 -- the terminal is what this module is for


def _read_code() -> str:
    print("Enter the resulting Authorization Code here: ", end="", file=sys.stderr, flush=True)  # noqa: T201
    line = sys.stdin.readline()
    if not line:
        raise LoginNeeded(why="the input ended before an authorization code was entered")
    return line
