"""How a Client gets in: which service, whose tokens, and the login of a person who sits in front of it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from muster.errors import Invalid, LoginNeeded, MusterError
from muster.wire.rest import COMPUTE_SERVER

if TYPE_CHECKING:
    from muster.rest import Rest

T = TypeVar("T")

LOCAL_URL = "http://localhost:5000"


class ForeignTokens:
    """Tokens of an authorizer or app of the official identity library, as its users have them at hand."""

    def __init__(self, authorizer_for: Callable[[str], Any]) -> None:
        self._authorizer_for = authorizer_for

    def token(self, resource_server: str, force: bool = False) -> str:
        authorizer = self._authorizer_for(resource_server)
        if force:
            authorizer.handle_missing_authorization()
        header = authorizer.get_authorization_header()
        kind, _, token = (header or "").partition(" ")
        if kind != "Bearer" or not token:
            raise LoginNeeded(why="the given authorizer has no bearer token")
        return token


class Caller:
    """One account at one service."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest

    def call(self, method: str, path: str, body: object = None, answer: Any = None, *, repeatable: bool = False) -> Any:
        """One request; a person in front of it is asked to log in when that is what it needs."""
        return with_login(self.rest, lambda: self.rest.call(method, path, body, answer, repeatable=repeatable))


def open_rest(service_url: str | None, environment: str | None, local: bool, app: Any, authorizer: Any) -> Rest:
    """The REST client that the Client's arguments describe."""
    from muster.rest import Rest

    if app is not None and authorizer is not None:
        raise ValueError("give an app or an authorizer, not both")
    if environment not in (None, "local"):
        raise Invalid(why=f"environment {environment!r} is not known here; give service_url or set MUSTER_SERVICE_URL")
    url = service_url or (LOCAL_URL if local or environment == "local" else None)
    if app is not None:
        return Rest(url, ForeignTokens(app.get_authorizer))
    if authorizer is not None:
        return Rest(url, ForeignTokens(lambda _server: authorizer))
    return Rest(url)


def with_login(rest: Rest, ask: Callable[[], T]) -> T:
    """Do what needs a token; when the service wants somebody to log in first, let them, and ask once more."""
    try:
        return ask()
    except MusterError as error:
        refused = error  # what follows is no part of handling it: a traceback shows one error, not a chain
    demands = refused.facts.get("authorization_parameters")
    parameters = demands if isinstance(demands, Mapping) else {}
    if not (isinstance(refused, LoginNeeded) or parameters) or not log_in(rest, parameters):
        raise refused
    return ask()


def log_in(rest: Rest, demands: Mapping[str, Any]) -> bool:
    """Whether there is a new login now. Asks a person only where one can answer."""
    from muster.rest.tokens import ClientCredentials, StoredTokens

    tokens = rest.tokens
    if isinstance(tokens, ClientCredentials):
        if not demands:
            return False  # the same secret would be refused again
        tokens.token(COMPUTE_SERVER, force=True)
        return True
    if not isinstance(tokens, StoredTokens) or not can_ask():
        return False
    from muster.rest.login import Login

    Login(rest.url).with_code(read=_read_code if in_notebook() else None, demands=demands)
    tokens.token(COMPUTE_SERVER, force=True)
    return True


def can_ask() -> bool:
    """Whether somebody sits in front of this thread."""
    if threading.current_thread() is not threading.main_thread() or os.environ.get("MUSTER_NO_LOGIN"):
        return False
    return in_notebook() or bool(sys.stdin and sys.stdin.isatty())


def in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _read_code() -> str:
    return input("Enter the resulting Authorization Code here: ")
