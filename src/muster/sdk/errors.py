"""What may come out of a future or a Client call, beyond the tree of `muster.errors`."""

from __future__ import annotations

from textwrap import indent

from muster.errors import CannotDeserialize, CannotSerialize, MusterError, Refusal, TaskError

SerializationError = CannotSerialize  # the official names
DeserializationError = CannotDeserialize

# With these the traceback says all; every other code is an outcome whose sentence comes first.
_PLAIN_FAILURES = frozenset({"", "RemoteExecutionError", "TASK_FAILED", "UNKNOWN_TASK_FAILURE"})


class TaskExecutionFailed(TaskError):
    """The task ended without a value. `code` names the outcome, `remote_data` is the traceback of the other side."""

    def __init__(self, remote_data: str, completion_t: str = "0", code: str = "", reason: str = "") -> None:
        self.remote_data = remote_data
        self.completion_t = completion_t
        self.reason = reason
        super().__init__(reason or _last_line(remote_data) or "The task failed.")
        self.args = (remote_data, completion_t, code, reason)
        self.code = code or "RemoteExecutionError"

    def __str__(self) -> str:
        trace = self.remote_data.strip("\n")
        if self.code in _PLAIN_FAILURES:
            return f"{_last_line(trace)}\n\nRaised by the function on the endpoint:\n\n{indent(trace, '    ')}\n"
        first = f"{self.reason or _last_line(trace)} [{self.code}]"
        if not trace or trace == self.reason:
            return first
        return f"{first}\n\n{indent(trace, '    ')}\n"


class TaskPending(MusterError):
    """The task has not ended; `reason` is the state it is in."""

    code = "TASK_PENDING"
    public = "The task is pending: {reason}"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason=reason)


class VersionMismatch(Refusal):
    """The service asks for a newer SDK, or a newer endpoint."""

    code = "VERSION_MISMATCH"
    public = "{why}"


def _last_line(trace: str) -> str:
    """`ZeroDivisionError: division by zero`, the line people look for."""
    lines = [line for line in trace.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return lines[-1].strip() if lines else trace.strip()
