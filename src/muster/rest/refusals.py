"""An error that came over HTTP becomes the error it was on the other side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from muster.errors import (
    Conflict,
    Invalid,
    Locked,
    MusterError,
    NotFound,
    NotPermitted,
    Outage,
    Refusal,
    TooLarge,
    Unauthenticated,
)
from muster.rest.connection import Answer

_FAMILY: Final[dict[int, type[MusterError]]] = {
    400: Refusal,
    401: Unauthenticated,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Refusal,
    423: Locked,
    429: Outage,
    502: Outage,
    503: Outage,
    504: Outage,
}
_MESSAGE_LIMIT: Final = 4000


def error_from(answer: Answer, what: str) -> MusterError:
    """The class that fits status and code, with the server's own sentence; `what` names the call for the log."""
    document = _document(answer.body)
    code = _text(document.get("code")) or _text(document.get("error"))
    said = _text(document.get("message")) or _text(document.get("error_description"))
    said = said or f"The service answered {answer.status} to {what}."
    facts: dict[str, Any] = {"status": answer.status, "code": code}
    parameters = document.get("authorization_parameters")
    if isinstance(parameters, dict):
        facts["authorization_parameters"] = parameters
    kind = _kind(answer.status, code)
    return kind.told(said[:_MESSAGE_LIMIT], **facts)


def _kind(status: int, code: str) -> type[MusterError]:
    """A code selects only within the family that the status allows: a 403 never turns into something milder."""
    family = _FAMILY.get(status) or (MusterError if status >= 500 else Refusal)
    if family is MusterError:
        return MusterError
    found = next((kind for kind in _tree(family) if kind.code == code), None)
    if found is not None:
        return found
    return Invalid if status in {400, 422} and not code else family


def _tree(kind: type[MusterError]) -> Iterator[type[MusterError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
