"""The browser's side: a session cookie, a token against forged forms, and pages that run no script."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from muster.errors import NotPermitted
from muster.identity.clients import origins_of
from muster.identity.logins import Proof
from muster.identity.secret import digest, new_secret
from muster.store.contract import Grant, IdentityStore

SESSION_S: Final = 12 * 3600
PAGES: Final = Path(__file__).with_name("pages")
STYLE_PATH: Final = "/v2/web/identity.css"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # `no-referrer` would turn the Origin of our own forms into "null"
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Sessions:
    """Cookies are HttpOnly, SameSite=Strict, and (under https) bound to this host."""

    def __init__(self, store: IdentityStore, origin: str, key: bytes) -> None:
        self._store = store
        self._origins = origins_of(origin)
        self._key = key
        self._secure = origin.startswith("https://")
        self._prefix = "__Host-" if self._secure else ""
        self._pages = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined)

    async def current(self, request: Request) -> Proof | None:
        """Who is logged in with this browser, and since when."""
        secret = request.cookies.get(self._prefix + "muster_session", "")
        grant = await self._store.grant(digest(secret), "session") if secret else None
        if grant is None or grant.identity is None or grant.expires_at_s <= time.time():
            return None
        identity = await self._store.identity(grant.identity)
        return None if identity is None else Proof(identity, grant.authenticated_at_s or grant.issued_at_s)

    async def begin(self, response: Response, proof: Proof) -> None:
        secret = new_secret()
        grant = Grant(
            digest=digest(secret),
            kind="session",
            client=None,
            identity=proof.identity.id,
            scope="",
            expires_at_s=proof.at_s + SESSION_S,
            issued_at_s=proof.at_s,
            authenticated_at_s=proof.at_s,
        )
        await self._store.add_grant(grant)
        self._set(response, "muster_session", secret)

    async def end(self, request: Request, response: Response) -> None:
        secret = request.cookies.get(self._prefix + "muster_session", "")
        if secret:
            await self._store.take_grant(digest(secret), "session")
        response.delete_cookie(self._prefix + "muster_session", secure=self._secure, httponly=True, samesite="strict")

    def check(self, request: Request, form: Mapping[str, str], purpose: str) -> None:
        """NotPermitted unless the form was made by us, for this browser and for this very purpose."""
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and origin not in self._origins) or site not in {"same-origin", "none"}:
            raise NotPermitted(why="this form was sent from another site")
        cookie = request.cookies.get(self._prefix + "muster_form", "")
        given = form.get("csrf", "")
        if not cookie or not hmac.compare_digest(given.encode(), self._mark(cookie, purpose).encode()):
            raise NotPermitted(why="this form is out of date; reload the page and try again")

    def page(
        self,
        request: Request,
        name: str,
        purpose: str = "",
        *,
        status: int = 200,
        goes_to: str = "",
        **values: Any,
    ) -> Response:
        """Render a page; `purpose` binds its form, `goes_to` is another origin that the form may lead to."""
        cookie = request.cookies.get(self._prefix + "muster_form") or new_secret()
        html = self._pages.get_template(name).render(csrf=self._mark(cookie, purpose), style=STYLE_PATH, **values)
        forms = f"'self' {goes_to}".strip()
        policy = f"default-src 'none'; style-src 'self'; form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
        response = HTMLResponse(html, status, {**_HEADERS, "Content-Security-Policy": policy})
        if purpose:
            self._set(response, "muster_form", cookie)
        return response

    def _mark(self, cookie: str, purpose: str) -> str:
        return hmac.new(self._key, f"{cookie}\n{purpose}".encode(), hashlib.sha256).hexdigest()

    def _set(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(
            self._prefix + name, value, max_age=SESSION_S, secure=self._secure, httponly=True, samesite="strict"
        )
