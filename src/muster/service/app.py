"""The application: routes, and the one place where an error becomes HTTP."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from muster.errors import MusterError, Refusal
from muster.service.calls import CALLS, Asked, Call
from muster.wire.rest import ErrorDocument, error_document, status_of

if TYPE_CHECKING:
    from muster.service.service import Service

log = logging.getLogger(__name__)


def routes(service: Service) -> list[Route]:
    return [Route(call.path, _endpoint(service, call), methods=[call.method]) for call in CALLS]


def _endpoint(service: Service, call: Call) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        someone = None
        if call.access == "user":
            someone = await service.desk.identify(request.headers.get("authorization"))
        return await call.answer(Asked(service, request, someone))

    return answer


def application(all_routes: Sequence[BaseRoute]) -> ASGIApp:
    """Every route of the origin behind one error handler."""
    app = Starlette(
        routes=all_routes,
        exception_handlers={MusterError: say_no, HTTPException: say_http_no, Exception: say_sorry},
    )
    return _Edge(app)


async def say_no(request: Request, error: Exception) -> Response:
    """The public half goes out, the rest is logged."""
    assert isinstance(error, MusterError)
    status = status_of(error)
    level = logging.INFO if isinstance(error, Refusal) else logging.ERROR
    log.log(level, "%s %s: %d %s %s", request.method, shown_path(request), status, error.code, error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return Response(msgspec.json.encode(error_document(error)), status, headers, "application/json")


async def say_http_no(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "REFUSED")
    document = ErrorDocument(code=code, message=f"{error.detail}: {request.method} {shown_path(request)}")
    return Response(msgspec.json.encode(document), error.status_code, error.headers, "application/json")


async def say_sorry(request: Request, error: Exception) -> Response:
    """A mistake of ours: the caller gets a number to quote, the log gets the rest."""
    number = secrets.token_hex(8)
    log.error("%s %s failed, request id %s", request.method, shown_path(request), number, exc_info=error)
    message = f"Something went wrong on our side. Quote request id {number} to whoever runs this service."
    document = {"code": MusterError.code, "message": message, "request_id": number}
    return Response(msgspec.json.encode(document), 500, media_type="application/json")


def shown_path(request: Request) -> str:
    """For messages: bounded, printable, and never with the broker's secret in it."""
    path = request.url.path
    if path.startswith("/broker/"):
        return "/broker/..."
    return path[:200].encode("ascii", "backslashreplace").decode()


class _Edge:
    """Starlette answers an unknown exception and raises it again; by then it is logged, and it ends here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            log.info("a client left before its answer")
        except Exception:  # the edge of the process: `say_sorry` has answered and logged it
            log.debug("answered with 500", exc_info=True)
