"""Which OAuth client is calling, and whether it has proved it."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote_plus, urlsplit
from uuid import UUID

from authlib.oauth2.rfc6749.errors import InvalidClientError, InvalidRequestError
from starlette.requests import Request

from muster.errors import Conflict
from muster.identity.secret import digest
from muster.rest.connection import is_loopback
from muster.store.contract import IdentityStore, OAuthClient

CODE_PAGE = "/v2/web/auth-code"
LOOPBACK_URIS = ("http://127.0.0.1/callback", "http://[::1]/callback")  # any port, by RFC 8252


def origins_of(origin: str) -> frozenset[str]:
    """The origin; on a loopback address also its other spellings, because people type either."""
    parts = urlsplit(origin)
    if not is_loopback(parts.hostname):
        return frozenset({origin})
    port = f":{parts.port}" if parts.port else ""
    return frozenset({origin, *(f"{parts.scheme}://{host}{port}" for host in ("localhost", "127.0.0.1", "[::1]"))})


def redirects_to(client: OAuthClient, uri: str) -> bool:
    """Exact match, but for the port of a loopback address."""
    if uri in client.redirect_uris:
        return True
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:  # whatever stands there instead of a host and a port would end up in headers of ours
        return False
    if parts.scheme != "http" or parts.hostname not in {"127.0.0.1", "::1"} or "@" in parts.netloc:
        return False
    host = "[::1]" if parts.hostname == "::1" else parts.hostname
    return f"http://{host}{parts.path}" in client.redirect_uris and uri == f"http://{host}{port}{parts.path}"


class Clients:
    """Finds clients, and checks their secrets."""

    def __init__(self, store: IdentityStore, origin: str, native: UUID) -> None:
        self._store = store
        self._native = native
        self._native_uris = (*(o + CODE_PAGE for o in sorted(origins_of(origin))), *LOOPBACK_URIS)

    async def open(self) -> None:
        """The client built into the official packages exists from the first start on."""
        if await self._store.client(self._native) is None:
            native = OAuthClient(self._native, "Command line programs", redirect_uris=self._native_uris)
            with suppress(Conflict):  # another process of the service started at the same moment
                await self._store.add_client(native)

    async def find(self, client_id: str) -> OAuthClient | None:
        try:
            id_ = UUID(client_id)
        except ValueError:
            return None
        client = await self._store.client(id_)
        if client is not None and id_ == self._native:  # the origin may have changed since it was stored
            return OAuthClient(client.id, client.name, redirect_uris=self._native_uris)
        return client

    async def authenticate(self, request: Request, form: Mapping[str, str]) -> OAuthClient:
        """A confidential client by Basic or by form, a public one by its id alone; InvalidClientError otherwise."""
        client_id, secret = credentials(request.headers.get("authorization"), form)
        client = await self.find(client_id)
        if client is not None and self._proved(client, secret):
            return client
        raise InvalidClientError("Unknown client, or a wrong secret.", status_code=401)

    @staticmethod
    def _proved(client: OAuthClient, secret: str | None) -> bool:
        if client.secret_sha256 is None:
            return secret is None
        return hmac.compare_digest(digest(secret or ""), client.secret_sha256)


def credentials(header: str | None, form: Mapping[str, str]) -> tuple[str, str | None]:
    if header is None:
        return form.get("client_id", ""), form.get("client_secret")
    if "client_secret" in form:
        raise InvalidRequestError("Send the client's secret once: in the header or in the form.")
    kind, _, encoded = header.partition(" ")
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode() if kind.lower() == "basic" else ""
    except ValueError:  # no base64, not even ASCII, or no text inside
        pair = ""
    name, colon, secret = pair.partition(":")
    if not colon or form.get("client_id", name) not in {name, unquote_plus(name)}:
        raise InvalidClientError("The Authorization header is not usable here.", status_code=401)
    return unquote_plus(name), unquote_plus(secret)
