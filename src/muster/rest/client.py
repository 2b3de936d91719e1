"""The REST client: JSON in, JSON or one of our errors out."""

from __future__ import annotations

import logging
import os
import random
import time
from typing import Any, Final, TypeVar, overload
from urllib.parse import urlsplit

import msgspec

import muster
from muster.errors import MusterError, Outage, Refusal, Unauthenticated, UndecodableMessage
from muster.rest.connection import Answer, Http, Lost, NotSent, is_loopback
from muster.rest.refusals import error_from
from muster.rest.tokens import TokenSource, default_tokens
from muster.wire.rest import AUTH_SERVER, COMPUTE_SERVER

T = TypeVar("T")

log = logging.getLogger(__name__)

DEFAULT_URL: Final = "http://localhost:5000"
TRIES: Final = 5
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 10.0
PATIENCE_S: Final = 60.0  # no new try is begun after that
_BUSY: Final = frozenset({429, 502, 503, 504})


def service_url() -> str:
    """MUSTER_SERVICE_URL, or the service of this machine."""
    return (os.environ.get("MUSTER_SERVICE_URL") or DEFAULT_URL).rstrip("/")


class Rest:
    """One service, one caller. Blocking; safe to use from many threads (one connection each)."""

    def __init__(self, url: str | None = None, tokens: TokenSource | None = None, timeout_s: float = 60) -> None:
        self.url = (url or service_url()).rstrip("/")
        self._http = Http(self.url, timeout_s)
        self._tokens = tokens
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            log.warning("%s is not encrypted: anyone on the way can read and reuse your tokens", self.url)

    @property
    def tokens(self) -> TokenSource:
        """Where the tokens come from: what was given, else the environment or the token file."""
        if self._tokens is None:
            self._tokens = default_tokens(self.url)
        return self._tokens

    @overload
    def call(
        self,
        method: str,
        path: str,
        body: object,
        answer: type[T],
        authenticated: bool = True,
        *,
        repeatable: bool = False,
    ) -> T: ...

    @overload
    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        answer: type[T],
        authenticated: bool = True,
        repeatable: bool = False,
    ) -> T: ...

    @overload
    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        answer: None = None,
        authenticated: bool = True,
        *,
        repeatable: bool = False,
    ) -> Any: ...

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        answer: Any = None,
        authenticated: bool = True,
        *,
        repeatable: bool = False,
    ) -> Any:
        """Send `body` as JSON, return the answer as `answer` (None: plain JSON, None when it is no JSON).

        A request that may have been carried out is repeated only when it is a GET or the caller says `repeatable`.
        """
        content = None if body is None else msgspec.json.encode(body)
        again = repeatable or method == "GET"
        server = AUTH_SERVER if path.startswith(("/v2/api/", "/v2/oauth2/")) else COMPUTE_SERVER
        token = self.tokens.token(server) if authenticated else None
        got = self._send(method, path, content, token, again)
        if got.status == 401 and authenticated:
            fresh = self.tokens.token(server, force=True)
            if fresh != token:
                got = self._send(method, path, content, fresh, again)
        if got.status >= 300:
            raise _refusal(got, f"{method} {path}")
        return _read(got, answer, f"{method} {path}")

    def close(self) -> None:
        """Close the calling thread's connection."""
        self._http.close()

    def _send(self, method: str, path: str, content: bytes | None, token: str | None, again: bool) -> Answer:
        headers = _headers(content, token)
        start_s = time.monotonic()
        for tried in range(1, TRIES + 1):
            last = tried == TRIES or time.monotonic() - start_s > PATIENCE_S
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tried) * random.uniform(0.5, 1)  # noqa: S311
            try:
                got = self._http.send(method, path, content, headers)
            except NotSent as problem:
                if last:
                    raise _outage(self.url, problem) from None
            except Lost as problem:
                if last or not again:
                    raise _outage(self.url, problem) from None
            else:
                if last or not again or got.status not in _BUSY:
                    return got
                if got.retry_after_s is not None:
                    pause_s = min(LONGEST_PAUSE_S, got.retry_after_s)
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")


def _headers(content: bytes | None, token: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": f"muster/{muster.__version__}"}
    if content is not None:
        headers["Content-Type"] = "application/json"
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _outage(url: str, problem: Exception) -> Outage:
    return Outage(what=f"The service at {url} ({problem})")


def _refusal(got: Answer, what: str) -> MusterError:
    if got.status < 400:
        where = got.headers.get("location") or "another address"
        return Refusal.told(f"The service sends us on to {where}: set MUSTER_SERVICE_URL to the address it really has.")
    error = error_from(got, what)
    if isinstance(error, Unauthenticated):
        log.debug("%s was refused with 401", what)
    return error


def _read(got: Answer, answer: Any, what: str) -> Any:
    if answer is None:
        try:
            return msgspec.json.decode(got.body)
        except msgspec.DecodeError:
            return None
    try:
        return msgspec.json.decode(got.body, type=answer)
    except msgspec.DecodeError as problem:
        raise UndecodableMessage(why=f"the answer to {what}: {problem}") from problem
