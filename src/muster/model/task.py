"""A task, its states and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class TaskState(StrEnum):
    """Where a task is; the strings are those of the official task document."""

    RECEIVED = "received"  # committed to the store
    WAITING_FOR_LAUNCH = "waiting-for-launch"  # its user endpoint is being started
    WAITING_FOR_ENDPOINT = "waiting-for-ep"  # queued for a user endpoint that is up
    SUCCESS = "success"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (TaskState.SUCCESS, TaskState.FAILED)


@dataclass(frozen=True, slots=True)
class Task:
    """One call of one function for one user endpoint. `payload` is opaque to everyone but the worker."""

    id: UUID
    group: UUID
    owner: UUID  # identity that submitted it
    endpoint: UUID  # the user endpoint, or the single-user endpoint, that runs it
    function: UUID
    payload: str  # packed [args, kwargs]
    resources: str | None = None  # JSON text
    serializers: tuple[str, ...] = ()  # result serializers, import paths
    created_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended, once. On success `error` is None and `data` the serialised result, else a traceback text."""

    task: UUID
    data: str
    error: tuple[str, str] | None = None  # (code, message for the user)
    details: str = "{}"  # JSON: os, python_version, dill_version, endpoint_id ...
    started_ns: int | None = None  # unix time
    ended_ns: int | None = None
    completed_at_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks whose results share one queue. `bundles`: the last client that attached to it reads bundles."""

    id: UUID
    owner: UUID
    bundles: bool = False
    created_at_s: float = 0.0
