"""The identity provider as the service sees it: routes to mount, and one question to ask."""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from muster.identity.api import Api
from muster.identity.approval import Approval
from muster.identity.authorize import AuthorizePages, show_code
from muster.identity.bearer import Bearer
from muster.identity.clients import CODE_PAGE, Clients
from muster.identity.device import PATH as DEVICE_PAGE
from muster.identity.device import DeviceLogin
from muster.identity.documents import Documents
from muster.identity.forms import Handler, answering
from muster.identity.grants import GRANTS, TokenEndpoint, introspect, revoke
from muster.identity.issue import Issuer
from muster.identity.keys import ALGORITHM, SigningKey
from muster.identity.logins import Logins
from muster.identity.passwords import Passwords
from muster.identity.scopes import SERVER_OF
from muster.identity.secret import new_secret
from muster.identity.sessions import PAGES, STYLE_PATH, Sessions
from muster.model.identity import Principal
from muster.store.contract import Store
from muster.wire.rest import NATIVE_CLIENT

AUTHORIZE: Final = "/v2/oauth2/authorize"
TOKEN: Final = "/v2/oauth2/token"  # noqa: S105 -- a path
REVOKE: Final = "/v2/oauth2/token/revoke"
INTROSPECT: Final = "/v2/oauth2/token/introspect"
DEVICE_START: Final = "/v2/oauth2/device_authorization"
USERINFO: Final = "/v2/oauth2/userinfo"
KEYS: Final = "/jwk.json"


class Authority:
    """Open it once, mount its routes, ask it who is calling. `origin`: the address people type, without a path."""

    def __init__(self, store: Store, origin: str) -> None:
        self.origin = origin.rstrip("/")
        self._store = store
        self._bearer = Bearer(store)
        self._clients = Clients(store, self.origin, UUID(NATIVE_CLIENT))
        self._logins = Logins(store, Passwords(store), self._bearer)
        self._routes: list[Route] = []
        self._sessions: Sessions | None = None

    async def open(self) -> None:
        """Find the keys, or make them at the first start."""
        key = await SigningKey.open(self._store)
        provider = UUID(bytes=await self._store.setting("identity.provider", uuid4().bytes))
        forms_key = await self._store.setting("identity.forms_key", new_secret().encode())
        await self._clients.open()
        self._sessions = Sessions(self._store, self.origin, forms_key)
        self._routes = self._make_routes(key, Documents(provider), self._sessions)

    def routes(self) -> list[Route]:
        """After `open`."""
        return list(self._routes)

    async def authenticate(self, authorization_header: str | None, resource_server: str) -> Principal:
        """Who calls; Unauthenticated, or NotPermitted when the token is for something else."""
        return await self._bearer.principal(authorization_header, resource_server)

    async def visitor(self, request: Request) -> Principal | None:
        """Who is logged in with this browser, for pages; no token is involved, so it may read but change nothing."""
        proof = await self._sessions.current(request) if self._sessions else None
        return None if proof is None else await self._logins.of_record(proof.identity)

    def _make_routes(self, key: SigningKey, documents: Documents, sessions: Sessions) -> list[Route]:
        store, clients, bearer, logins = self._store, self._clients, self._bearer, self._logins
        issuer = Issuer(store, key, bearer, documents, self.origin)
        approval = Approval(logins, sessions)
        device = DeviceLogin(store, clients, logins, sessions, approval, self.origin)
        api = Api(store, bearer, documents)
        given: list[tuple[str, Handler, str]] = [
            ("/.well-known/openid-configuration", self._discovery, "GET"),
            ("/.well-known/oauth-authorization-server", self._discovery, "GET"),
            (KEYS, partial(_public_keys, key=key), "GET"),
            (AUTHORIZE, AuthorizePages(store, clients, logins, sessions, approval), "GET POST"),
            (CODE_PAGE, partial(show_code, sessions=sessions), "GET"),
            (TOKEN, TokenEndpoint(store, clients, issuer, bearer, logins), "POST"),
            (REVOKE, partial(revoke, store=store, clients=clients, bearer=bearer), "POST"),
            (INTROSPECT, partial(introspect, store=store, clients=clients, bearer=bearer), "POST"),
            (DEVICE_START, device.start, "POST"),
            (DEVICE_PAGE, device.page, "GET POST"),
            (STYLE_PATH, _style, "GET"),
            (USERINFO, api.userinfo, "GET POST"),
            ("/v2/api/identities", api.identities, "GET"),
            ("/v2/api/identities/{id}/consents", api.consents, "GET"),
            ("/v2/api/projects", api.projects, "GET"),
            ("/v2/api/projects", api.add_project, "POST"),
            ("/v2/api/policies", api.add_policy, "POST"),
        ]
        return [Route(path, answering(handler), methods=methods.split()) for path, handler, methods in given]

    async def _discovery(self, request: Request) -> Response:
        del request
        here = self.origin
        document: dict[str, Any] = {
            "issuer": here,
            "authorization_endpoint": here + AUTHORIZE,
            "token_endpoint": here + TOKEN,
            "revocation_endpoint": here + REVOKE,
            "introspection_endpoint": here + INTROSPECT,
            "device_authorization_endpoint": here + DEVICE_START,
            "userinfo_endpoint": here + USERINFO,
            "jwks_uri": here + KEYS,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": list(GRANTS),
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "scopes_supported": list(SERVER_OF),
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "auth_time", "preferred_username", "name", "email"],
        }
        return JSONResponse(document)


async def _public_keys(request: Request, key: SigningKey) -> Response:
    del request
    return JSONResponse(key.public_set())


async def _style(request: Request) -> Response:
    del request
    return FileResponse(PAGES / "identity.css", media_type="text/css", headers={"Cache-Control": "max-age=3600"})
