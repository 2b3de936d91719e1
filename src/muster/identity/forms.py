"""Forms and queries from outside: small, each field once, nothing else believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from authlib.oauth2.rfc6749.errors import InvalidRequestError, OAuth2Error
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from muster.errors import Invalid, MusterError, TooLarge
from muster.wire.rest import error_document, status_of

LIMIT_BODY_BYTES: Final = 32 * 1024
LIMIT_QUERY_CHARACTERS: Final = 8 * 1024
LIMIT_FIELDS: Final = 40
LIMIT_FIELD_CHARACTERS: Final = 8 * 1024

Handler = Callable[[Request], Awaitable[Response]]


async def read_body(request: Request) -> bytes:
    """TooLarge as soon as the limit is passed, whatever the header promised."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LIMIT_BODY_BYTES:
            raise TooLarge(what="The request", size_bytes=f"over {LIMIT_BODY_BYTES}", limit_bytes=LIMIT_BODY_BYTES)
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; a field that comes twice is an error, as RFC 6749 wants it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequestError("Send a form (application/x-www-form-urlencoded).")
    return fields((await read_body(request)).decode("utf-8", "replace"))


def read_query(request: Request) -> dict[str, str]:
    raw = request.url.query
    if len(raw) > LIMIT_QUERY_CHARACTERS:
        raise InvalidRequestError("The query is too long.")
    return fields(raw)


def fields(encoded: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=LIMIT_FIELDS)
    except ValueError:
        raise InvalidRequestError(f"More than {LIMIT_FIELDS} fields.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequestError(f"The field {name[:100]!a} comes twice.")
        if len(value) > LIMIT_FIELD_CHARACTERS:
            raise InvalidRequestError(f"The field {name[:100]!a} is too long.")
        found[name] = value
    return found


async def read_json(request: Request, kind: Any) -> Any:
    """Invalid says where it does not fit."""
    try:
        return msgspec.json.decode(await read_body(request), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Invalid(why=str(problem)[:500]) from problem


def answering(handler: Handler) -> Handler:
    """The one place where a refusal of this package becomes HTTP: OAuth's own shape, or ours."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except OAuth2Error as refusal:
            return oauth_refusal(refusal)
        except MusterError as error:
            headers = {"Cache-Control": "no-store"}
            return JSONResponse(msgspec.to_builtins(error_document(error)), status_of(error), headers)

    return answer


def oauth_refusal(refusal: Any) -> JSONResponse:
    return JSONResponse(dict(refusal.get_body()), refusal.status_code, dict(refusal.get_headers()))
