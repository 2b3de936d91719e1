"""The REST documents, shared by whoever asks and whoever answers (official v2 and v3 routes, and ours)."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.errors import (
    Conflict,
    Locked,
    MusterError,
    NotFound,
    NotPermitted,
    Outage,
    Refusal,
    TooLarge,
    Unauthenticated,
)
from muster.wire.command import QueueInfo

COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
COMPUTE_SERVER = "funcx_service"
AUTH_SERVER = "auth.globus.org"
PROJECTS_SCOPE = "urn:globus:auth:scope:auth.globus.org:manage_projects"
AUTH_SCOPES = ("openid", "profile", "email", PROJECTS_SCOPE)
NATIVE_CLIENT = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"  # built into the official clients; ours use it too

LIMIT_SUBMIT_BYTES = 10 * 1024 * 1024
LIMIT_RESULT_CHARACTERS = 10 * 1024 * 1024

STATUS: tuple[tuple[type[MusterError], int], ...] = (
    (Unauthenticated, 401),
    (NotPermitted, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Locked, 423),
    (Refusal, 422),
    (Outage, 503),
    (MusterError, 500),
)


class ErrorDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Every error body. `authorization_parameters` turns it into a demand to log in again (GARE)."""

    code: str
    message: str
    reason: str | None = None
    authorization_parameters: dict[str, Any] | None = None


def status_of(error: MusterError) -> int:
    return next(status for kind, status in STATUS if isinstance(error, kind))


def error_document(error: MusterError) -> ErrorDocument:
    """The public half of an error; the other half stays in the log."""
    parameters = error.facts.get("authorization_parameters")
    return ErrorDocument(
        code=error.code,
        message=error.message(),
        authorization_parameters=parameters if isinstance(parameters, dict) else None,
    )


class MusterPart(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a registering process of ours says beyond the official document."""

    version: str
    kind: str = "manager"  # or "single"
    bundles: int = 0
    new_seal_key: bool = False  # answer with a fresh seal key; only the registrar asks, never the agent


class Registration(msgspec.Struct, kw_only=True, omit_defaults=True):
    """POST /v3/endpoints, PUT /v3/endpoints/{id}."""

    endpoint_name: str
    public: bool = False
    high_assurance: bool = False
    multi_user: bool = False
    display_name: str | None = None
    allowed_functions: list[str] | None = None
    authentication_policy: str | None = None
    subscription_uuid: str | None = None
    admins: list[str] | None = None
    metadata: dict[str, Any] = {}
    muster: MusterPart | None = None


class Registered(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer. `command_queue_info` for managers; the last two for a single-user endpoint of ours."""

    endpoint_id: str
    heartbeat_queue_info: QueueInfo
    command_queue_info: QueueInfo | None = None
    task_queue_info: QueueInfo | None = None
    result_queue_info: QueueInfo | None = None
    seal_key: bytes | None = None  # base64 on the wire
    allowed_functions: list[str] | None = None
    bundles: int = 0
    warnings: list[str] | None = None  # the official answer always has the list


class FunctionRegistration(msgspec.Struct, kw_only=True, omit_defaults=True):
    """POST /v3/functions. With `serialized` false, `function_code` is Python source and the service wraps it."""

    function_name: str
    function_code: str
    serialized: bool = True
    description: str | None = None
    public: bool = False
    group: str | None = None
    ha_endpoint_id: str | None = None
    meta: dict[str, Any] = {}


class Submission(msgspec.Struct, kw_only=True, omit_defaults=True):
    """POST /v3/endpoints/{id}/submit. `task_ids` (ours) makes repeating the request harmless: same shape as `tasks`."""

    tasks: dict[str, list[str]]
    create_queue: bool = False
    task_group_id: str | None = None
    resource_specification: dict[str, Any] | None = None
    user_endpoint_config: dict[str, Any] | None = None
    result_serializers: list[str] | None = None
    user_runtime: dict[str, Any] | None = None
    task_ids: dict[str, list[str]] | None = None
    bundles: int = 0  # the submitter reads bundles of results from the group's queue


class Submitted(msgspec.Struct, kw_only=True):
    """The answer. The tasks are in the store."""

    request_id: str
    task_group_id: str
    endpoint_id: str
    tasks: dict[str, list[str]]


class TaskDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """GET /v2/tasks/{id}. Done exactly when `completion_t` is there; then either `result` or `exception`."""

    task_id: str
    status: str
    result: str | None = None
    exception: str | None = None
    completion_t: str | None = None
    details: dict[str, Any] | None = None
    error_code: str | None = None  # ours
    reason: str | None = None  # ours: the error in plain words


class BatchStatus(msgspec.Struct, kw_only=True):
    """POST /v2/batch_status."""

    task_ids: list[str]


class BatchStatusAnswer(msgspec.Struct, kw_only=True):
    """Tasks unknown to this caller are simply absent."""

    results: dict[str, TaskDocument]
    response: str = "batch"


class ResultQueue(msgspec.Struct, kw_only=True):
    """GET /v2/get_amqp_result_connection_url."""

    queue_prefix: str
    connection_url: str
