"""Our side of the OAuth token endpoint: forms out, token documents in."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import quote_plus, urlencode

import msgspec

import muster
from muster.errors import LoginNeeded, MusterError, Outage, UndecodableMessage
from muster.rest.connection import Answer, Http, Lost, NotSent
from muster.rest.refusals import error_from

TOKEN_PATH: Final = "/v2/oauth2/token"  # noqa: S105 -- a path
REVOKE_PATH: Final = "/v2/oauth2/token/revoke"
DEVICE_PATH: Final = "/v2/oauth2/device_authorization"
TRIES: Final = 5

T = TypeVar("T")


class IssuedToken(msgspec.Struct, kw_only=True):
    """One resource server's part of a token response."""

    access_token: str
    resource_server: str
    scope: str
    expires_in: int = 0
    refresh_token: str | None = None


class TokenResponse(IssuedToken, kw_only=True):
    """The whole response: the first part at top level, the others beside it."""

    other_tokens: list[IssuedToken] = []
    id_token: str | None = None

    def parts(self) -> list[IssuedToken]:
        return [self, *self.other_tokens]


class OAuthRefused(MusterError):
    """The token endpoint said no; `error` is its OAuth code, such as `authorization_pending`."""

    code = "OAUTH_REFUSED"
    public = "The identity service refused: {why}"

    @property
    def error(self) -> str:
        return str(self.facts.get("error", ""))


def ask_for_tokens(http: Http, form: Mapping[str, str], basic: tuple[str, str] | None = None) -> TokenResponse:
    """Any grant. OAuthRefused names the OAuth error; LoginNeeded when what we hold is spent, revoked or unknown."""
    answer = post_form(http, TOKEN_PATH, form, basic)
    return read_answer(answer, TokenResponse)


def post_form(http: Http, path: str, form: Mapping[str, str], basic: tuple[str, str] | None = None) -> Answer:
    """Try again only while nothing can have reached the server, or it said that it is busy."""
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": f"muster/{muster.__version__}",
    }
    if basic is not None:
        pair = ":".join(quote_plus(part) for part in basic)  # RFC 6749 2.3.1 encodes both before joining
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    body = urlencode(form).encode()
    for tried in range(TRIES):
        asked_s = None
        try:
            answer = http.send("POST", path, body, headers)
        except (NotSent, Lost) as problem:
            if isinstance(problem, Lost) or tried == TRIES - 1:
                raise Outage(what=f"The service at {http.url} ({problem})") from None
        else:
            if answer.status not in {429, 503} or tried == TRIES - 1:
                return answer
            asked_s = answer.retry_after_s
        finally:
            http.close()  # the next one is an hour away
        time.sleep(min(10.0, asked_s or 0.25 * 2**tried))
    raise AssertionError("the last try returns or raises")


def read_answer(answer: Answer, kind: type[T]) -> T:
    """The document, or the refusal it is instead."""
    if answer.status >= 400:
        raise _refusal(answer)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError as problem:
        raise UndecodableMessage(why=f"the identity service's answer: {problem}") from problem


def _refusal(answer: Answer) -> MusterError:
    error = error_from(answer, "the token request")
    name = str(error.facts.get("code") or "")
    if name == "invalid_grant":
        return LoginNeeded(why=error.message().rstrip("."))
    if answer.status in {400, 401} and name:
        return OAuthRefused(error=name, why=error.message())
    return error
