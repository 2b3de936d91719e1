"""The error tree. Two questions decide a class: would asking again help, and who may read it.

    MusterError
      Refusal            asking again changes nothing
        Invalid            the request itself is wrong            -> HTTP 422
        Unauthenticated    we do not know who asks                -> 401
        NotPermitted       we know, and the answer is no          -> 403
        NotFound           nothing of that name for this caller   -> 404
        Conflict           it exists, or belongs to someone else  -> 409
        Locked             closed for registration for a while    -> 423
        TooLarge           over a stated limit                    -> 413
      Outage             asking again may help                    -> 503
      TaskError          an outcome of a task, told to its owner

`public` crosses the network and is written for the user; `detail` never leaves the site.
"""

from __future__ import annotations

from typing import ClassVar, Self


class MusterError(Exception):
    """`public` is written for the user and may cross the network; `detail` never leaves the site."""

    code: str = "error"  # a class says its own; only TaskExecutionFailed takes the code of the outcome it tells
    public: ClassVar[str] = "Something went wrong on our side."
    _told: str | None = None

    def __init__(self, detail: str = "", /, **facts: object) -> None:
        self.facts = facts
        self.detail = detail
        super().__init__(detail or self.message())

    def message(self) -> str:
        """The public sentence, filled with the facts of this case."""
        return self._told or self.public.format_map(_Facts(self.facts))

    @classmethod
    def told(cls, message: str, /, **facts: object) -> Self:
        """The same error as another process reported it: the other side's sentence is kept as it is."""
        error = cls(message, **facts)
        error._told = message
        return error


class _Facts(dict[str, object]):
    """A public sentence must never fail to print because a fact is missing."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


class Refusal(MusterError):
    """Asking again changes nothing."""

    code = "REFUSED"
    public = "The request was refused."


class Outage(MusterError):
    """Asking again may help: something that should be up is not."""

    code = "UNAVAILABLE"
    public = "{what} cannot be reached at the moment; try again."


class QueueFull(Outage):
    """Nobody reads this queue, or not fast enough: it takes no more for now. Others are not concerned."""

    code = "QUEUE_FULL"


class StoreOutage(Outage):
    """The database is away, busy, full or read-only; nothing of the call was kept. `detail` has its own words."""

    code = "STORE_UNAVAILABLE"
    public = "The service cannot reach or write its database at the moment; try again."


class Invalid(Refusal):
    """The request itself is wrong; `why` says where and how to mend it."""

    code = "SEMANTICALLY_INVALID"
    public = "Request payload failed validation: {why}"


class ConfigInvalid(Refusal):
    """A configuration file cannot be used; names file, key, value and the fix."""

    code = "CONFIG_INVALID"
    public = "{file}: {why}"


class Unauthenticated(Refusal):
    """No token, or one that is unknown, expired or revoked."""

    code = "AUTHENTICATION_FAILED"
    public = "Log in first: {why}"


class LoginNeeded(Unauthenticated):
    """There is no token that could be renewed: a person has to log in."""

    code = "LOGIN_NEEDED"
    public = "Not logged in ({why}). Run `muster login`, or set MUSTER_CLIENT_ID and MUSTER_CLIENT_SECRET."


class NotPermitted(Refusal):
    """The caller is known, and the answer is no."""

    code = "FORBIDDEN"
    public = "You may not do that: {why}"


class FunctionNotAllowed(NotPermitted):
    """The endpoint's administrator allows only certain functions (the seed's sentence)."""

    code = "FUNCTION_NOT_ALLOWED"
    public = "Function {function} not permitted on endpoint {endpoint}"


class NotFound(Refusal):
    """Nothing of that name exists for this caller; absence and denial look the same from outside."""

    code = "NOT_FOUND"
    public = "No such {thing}: {name}"


class Conflict(Refusal):
    """It exists already, or belongs to someone else."""

    code = "CONFLICT"
    public = "{why}"


class Locked(Refusal):
    """Closed for registration until a stated time."""

    code = "ENDPOINT_LOCKED"
    public = "Endpoint {endpoint} is locked until {until}"


class TooLarge(Refusal):
    """Over a stated limit."""

    code = "TASK_PAYLOAD_TOO_LARGE"
    public = "{what} has {size_bytes} bytes; the limit is {limit_bytes}."


class Unmapped(NotPermitted):
    """None of the identities has an account at the site."""

    code = "IDENTITY_UNMAPPED"
    public = "Identity failed to map to a local user name. Ask the endpoint's administrator to add you."


class StartFailed(Refusal):
    """A user endpoint could not be brought up; `why` is the cause in plain words."""

    code = "START_FAILED"
    public = "The user endpoint could not start: {why}"


class EndpointNotStarted(Refusal):
    """A manager or single-user endpoint did not come up; `why` is for the terminal of whoever started it."""

    code = "ENDPOINT_NOT_STARTED"
    public = "The endpoint could not start: {why}"


class StoreTooNew(Refusal):
    """The database was written by a newer Muster than this one."""

    code = "STORE_TOO_NEW"
    public = "The database has schema {found}, this Muster knows up to {known}: upgrade Muster, or restore a backup."


class CredentialsRefused(Refusal):
    """The broker or the service no longer accepts these credentials: terminal for the process that holds them."""

    code = "CREDENTIALS_REFUSED"
    public = "The credentials were refused; they may have been revoked."


class NoSuchQueue(Refusal):
    """Published to, or consumed from, a queue that does not exist."""

    code = "NO_SUCH_QUEUE"
    public = "A queue this needs does not exist."


class UndecodableMessage(Refusal):
    """Bytes that are no message of ours."""

    code = "UNDECODABLE"
    public = "A message could not be read: {why}"


class TaskError(MusterError):
    """An outcome of a task that is no return value; its code travels in the result."""

    code = "TASK_FAILED"
    public = "The task failed."


class CannotSerialize(TaskError):
    """A function, an argument or a result cannot be turned into text."""

    code = "SerializationError"
    public = "{what} cannot be serialized: {why}"


class CannotDeserialize(TaskError):
    """What came in cannot be turned back into a value here."""

    code = "DeserializationError"
    public = "Could not be read: {why}"


class TaskTimeout(TaskError):
    """The task ran longer than the endpoint lets one run."""

    code = "TaskTimeout"
    public = "The task was still running after {limit_s} seconds, the endpoint's limit, and was ended."


class WorkerLost(TaskError):
    """The process that ran the task died."""

    code = "WorkerLost"
    public = "The worker process running this task died ({why}). The task was not run again."


class UserEndpointLost(TaskError):
    """The user endpoint died while the task was running."""

    code = "UserEndpointLost"
    public = "The user endpoint died while this task was running ({why}). The task was not run again."


class EndpointOffline(TaskError):
    """The endpoint went away and did not come back in time."""

    code = "EndpointOffline"
    public = "The endpoint went offline before this task finished ({why})."


class TaskExpired(TaskError):
    """Nothing happened to the task for as long as the service keeps one."""

    code = "TaskExpired"
    public = "The task saw no progress for {age_s} seconds and was given up."


class ResultTooLarge(TaskError):
    """The result does not fit; the official clients know this code."""

    code = "MaxResultSizeExceeded"
    public = "MaxResultSizeExceeded({size_bytes}, {limit_bytes})"


class EndpointNotFound(NotFound):
    """No such endpoint, or none this caller may know of."""

    code = "ENDPOINT_NOT_FOUND"
    public = "Endpoint {endpoint} could not be resolved"


class FunctionNotFound(NotFound):
    """No such function, or none this caller may run."""

    code = "FUNCTION_NOT_FOUND"
    public = "Function {function} could not be resolved"


class TaskNotFound(NotFound):
    """No such task, or somebody else's."""

    code = "TASK_NOT_FOUND"
    public = "Task {task} could not be resolved"


class PolicyFailed(NotPermitted):
    """The endpoint's authentication policy wants other identities, or a newer login; clients log in again (GARE)."""

    code = "AUTHENTICATION_POLICY_FAILED"
    public = "The endpoint's authentication policy is not satisfied: {why}"
