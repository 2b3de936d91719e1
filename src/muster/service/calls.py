"""The calls: every route of the service in one table. A call translates; the nouns behind it decide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import muster
from muster.errors import EndpointNotFound, FunctionNotFound, Invalid, MusterError, NotFound, TaskNotFound
from muster.model.identity import Principal
from muster.service.reading import body_of, document, uuid_of
from muster.wire.rest import (
    LIMIT_SUBMIT_BYTES,
    BatchStatus,
    BatchStatusAnswer,
    FunctionRegistration,
    Registered,
    Registration,
    ResultQueue,
    Submission,
    Submitted,
    TaskDocument,
)

if TYPE_CHECKING:
    from muster.service.service import Service

API_VERSION = "1.50.0"  # of the hosted service whose routes these are
OLDEST_CLIENT = "2.0.0"

Answer = Awaitable[Response]


@dataclass(frozen=True, slots=True)
class Call:
    """One route. `access`: "open" to all, a "user" with a token, or whoever knows the "secret" in the path."""

    method: str
    path: str
    answer: Callable[[Asked], Answer]
    summary: str
    access: str = "user"
    takes: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is through the door. Calls that are open have no caller."""

    service: Service
    request: Request
    someone: Principal | None

    @property
    def caller(self) -> Principal:
        assert self.someone is not None, "the door lets nobody through without a token"
        return self.someone

    def id(self, error: type[MusterError], fact: str) -> UUID:
        """The id in the path; what is no id names nothing."""
        text = self.request.path_params["id"]
        try:
            return UUID(text)
        except ValueError:
            raise error(**{"thing": fact, "name": text[:60], fact: text[:60]}) from None

    async def read(self, decoder: msgspec.json.Decoder[Any], limit_bytes: int) -> Any:
        return document(await body_of(self.request, limit_bytes), decoder)


def reply(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


class LegacySubmission(msgspec.Struct, kw_only=True, omit_defaults=True):
    """POST /v2/submit of older clients: each task is [function, endpoint, payload]."""

    tasks: list[tuple[str, str, str]]
    create_queue: bool = False
    task_group_id: str | None = None
    user_runtime: dict[str, Any] | None = None


_REGISTRATION = msgspec.json.Decoder(Registration)
_FUNCTION = msgspec.json.Decoder(FunctionRegistration)
_SUBMISSION = msgspec.json.Decoder(Submission)
_LEGACY_SUBMISSION = msgspec.json.Decoder(LegacySubmission)
_BATCH = msgspec.json.Decoder(BatchStatus)


async def submit(asked: Asked) -> Response:
    submission = await asked.read(_SUBMISSION, LIMIT_SUBMIT_BYTES)
    endpoint = asked.id(EndpointNotFound, "endpoint")
    return reply(await asked.service.submit.take(asked.caller, endpoint, submission))


async def submit_legacy(asked: Asked) -> Response:
    submission: LegacySubmission = await asked.read(_LEGACY_SUBMISSION, LIMIT_SUBMIT_BYTES)
    endpoints = {endpoint for _, endpoint, _ in submission.tasks}
    if len(endpoints) != 1:
        raise Invalid(why="tasks: all tasks of one request go to one endpoint")
    by_function: dict[str, list[str]] = {}
    for function, _, payload in submission.tasks:
        by_function.setdefault(function, []).append(payload)
    modern = Submission(
        tasks=by_function,
        create_queue=submission.create_queue,
        task_group_id=submission.task_group_id,
        user_runtime=submission.user_runtime,
    )
    placed = await asked.service.submit.take(asked.caller, uuid_of(endpoints.pop(), "tasks"), modern)
    left = {function: iter(ids) for function, ids in placed.tasks.items()}
    ids = [next(left[str(UUID(function))]) for function, _, _ in submission.tasks]
    results = [{"status": "Success", "task_uuid": id_, "http_status_code": 200} for id_ in ids]
    return reply({"response": "success", "task_group_id": placed.task_group_id, "results": results})


async def version(asked: Asked) -> Response:
    if asked.request.query_params.get("service") != "all":
        return reply(API_VERSION)
    oldest = {"min_sdk_version": OLDEST_CLIENT, "min_ep_version": OLDEST_CLIENT, "min_endpoint_version": OLDEST_CLIENT}
    return reply({"api": API_VERSION, **oldest, "git_sha": "0" * 40, "muster": muster.__version__})


async def register_endpoint(asked: Asked) -> Response:
    return await _register(asked, None)


async def register_endpoint_again(asked: Asked) -> Response:
    return await _register(asked, asked.id(EndpointNotFound, "endpoint"))


async def _register(asked: Asked, id_: UUID | None) -> Response:
    service = asked.service
    registration = await asked.read(_REGISTRATION, service.settings.max_registration_bytes)
    client = asked.request.client
    address = client.host if client is not None else None
    return reply(await service.endpoints.register(asked.caller, id_, registration, address))


async def list_endpoints(asked: Asked) -> Response:
    return reply(await asked.service.endpoints.listed(asked.caller, asked.request.query_params.get("role", "owner")))


async def show_endpoint(asked: Asked) -> Response:
    return reply(await asked.service.endpoints.show(asked.caller, asked.id(EndpointNotFound, "endpoint")))


async def endpoint_status(asked: Asked) -> Response:
    return reply(await asked.service.endpoints.status(asked.caller, asked.id(EndpointNotFound, "endpoint")))


async def delete_endpoint(asked: Asked) -> Response:
    await asked.service.endpoints.delete(asked.caller, asked.id(EndpointNotFound, "endpoint"))
    return reply({"result": 302})


async def lock_endpoint(asked: Asked) -> Response:
    return reply(await asked.service.endpoints.lock(asked.caller, asked.id(EndpointNotFound, "endpoint")))


async def allowed_functions(asked: Asked) -> Response:
    id_ = asked.id(EndpointNotFound, "endpoint")
    return reply(await asked.service.endpoints.allowed_functions(asked.caller, id_))


async def register_function(asked: Asked) -> Response:
    registration = await asked.read(_FUNCTION, LIMIT_SUBMIT_BYTES)
    return reply({"function_uuid": str(await asked.service.functions.register(asked.caller, registration))})


async def show_function(asked: Asked) -> Response:
    return reply(await asked.service.functions.show(asked.caller, asked.id(FunctionNotFound, "function")))


async def delete_function(asked: Asked) -> Response:
    await asked.service.functions.delete(asked.caller, asked.id(FunctionNotFound, "function"))
    return reply({"result": 302})


async def show_task(asked: Asked) -> Response:
    return reply(await asked.service.tasks.show(asked.caller, asked.id(TaskNotFound, "task")))


async def batch_status(asked: Asked) -> Response:
    limit = asked.service.settings.max_batch_status
    batch: BatchStatus = await asked.read(_BATCH, 64 * limit)
    if len(batch.task_ids) > limit:
        raise Invalid(why=f"task_ids: more than {limit}")
    ids = [uuid_of(text, "task_ids") for text in batch.task_ids]
    return reply(BatchStatusAnswer(results=await asked.service.tasks.show_all(asked.caller, ids)))


async def task_group(asked: Asked) -> Response:
    bundles = asked.request.query_params.get("bundles", "0") not in ("", "0")
    id_ = asked.id(NotFound, "task group")
    return reply(await asked.service.tasks.group(asked.caller, id_, bundles=bundles))


async def result_queue(asked: Asked) -> Response:
    return reply(await asked.service.tasks.result_queue(asked.caller))


async def health(_asked: Asked) -> Response:
    return reply({"status": "ok", "version": muster.__version__})


async def user_endpoints(asked: Asked) -> Response:
    return reply(await asked.service.tasks.user_endpoints(asked.caller))


async def metrics(asked: Asked) -> Response:
    figures = await asked.service.store.load()
    text = "".join(f"muster_{name} {value}\n" for name, value in sorted(figures.items()))
    return Response(text, media_type="text/plain; version=0.0.4")


async def openapi(_asked: Asked) -> Response:
    from muster.service.openapi import description

    return reply(description(CALLS))


async def broker_question(asked: Asked) -> Response:
    """RabbitMQ's HTTP authorisation backend asks; parameters come as a form or in the query."""
    request = asked.request
    secret, kind = request.path_params["secret"], request.path_params["kind"]
    asked.service.broker_doorman.admit(secret)  # a stranger's body is not even read
    if request.method == "POST":
        text = (await body_of(request, asked.service.settings.max_small_bytes)).decode("utf-8", "replace")
    else:
        text = request.url.query
    facts: Mapping[str, str] = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
    allowed = await asked.service.broker_doorman.allows(kind, facts)
    return Response("allow" if allowed else "deny", media_type="text/plain")


_ENDPOINT = "/v2/endpoints/{id}"
CALLS: tuple[Call, ...] = (
    Call("POST", "/v3/endpoints/{id}/submit", submit, "Submit tasks", takes=Submission, gives=Submitted),
    Call("POST", "/v2/batch_status", batch_status, "Several tasks", takes=BatchStatus, gives=BatchStatusAnswer),
    Call("GET", "/v2/tasks/{id}", show_task, "One task", gives=TaskDocument),
    Call("GET", "/v2/taskgroup/{id}", task_group, "The tasks of a group; declares its result queue"),
    Call("GET", "/v2/get_amqp_result_connection_url", result_queue, "Where results arrive", gives=ResultQueue),
    Call("POST", "/v3/functions", register_function, "Register a function", takes=FunctionRegistration),
    Call("POST", "/v2/functions", register_function, "Register a function (older)", takes=FunctionRegistration),
    Call("GET", "/v2/functions/{id}", show_function, "One function"),
    Call("DELETE", "/v2/functions/{id}", delete_function, "Delete a function"),
    Call("GET", "/v2/version", version, "Versions", access="open"),
    Call("POST", "/v3/endpoints", register_endpoint, "Register", takes=Registration, gives=Registered),
    Call("POST", "/v2/endpoints", register_endpoint, "Register (older)", takes=Registration, gives=Registered),
    Call("PUT", "/v3/endpoints/{id}", register_endpoint_again, "Register again", takes=Registration, gives=Registered),
    Call("GET", "/v2/endpoints", list_endpoints, "My endpoints"),
    Call("GET", _ENDPOINT, show_endpoint, "One endpoint"),
    Call("DELETE", _ENDPOINT, delete_endpoint, "Delete an endpoint"),
    Call("GET", f"{_ENDPOINT}/status", endpoint_status, "Whether it is online"),
    Call("POST", "/v3/endpoints/{id}/lock", lock_endpoint, "Disconnect it and refuse registration for a while"),
    Call("POST", f"{_ENDPOINT}/lock", lock_endpoint, "Disconnect it and refuse registration for a while (older)"),
    Call("GET", "/v3/endpoints/{id}/allowed_functions", allowed_functions, "Which functions it runs"),
    Call("POST", "/v2/submit", submit_legacy, "Submit tasks (older)", takes=LegacySubmission),
    Call("GET", "/api/health", health, "Whether the service is up", access="open"),
    Call("GET", "/api/user-endpoints", user_endpoints, "My user endpoints"),
    Call("GET", "/metrics", metrics, "Counts, for monitoring"),
    Call("GET", "/openapi.json", openapi, "This description", access="open"),
    Call("POST", "/broker/{secret}/{kind}", broker_question, "RabbitMQ's authorisation backend", access="secret"),
    Call("GET", "/broker/{secret}/{kind}", broker_question, "RabbitMQ's authorisation backend", access="secret"),
)
