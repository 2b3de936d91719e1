"""One task: from its text to the text of its result. Nothing that the user's code raises gets out of here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from types import CoroutineType, TracebackType
from typing import Any, NamedTuple, Self

from muster.errors import CannotDeserialize, CannotSerialize, MusterError, ResultTooLarge
from muster.serialize.running import task_environment
from muster.serialize.serializer import Serializer

RESULT_LIMIT = 10 * 1024 * 1024  # characters, the official limit
_MAX_TRACEBACK = 32_768
_OURS = (os.path.dirname(__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep + "serialize" + os.sep)  # noqa: PTH120 - pathlib would double the worker's start


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What an engine's configuration says about every task. Travels to workers as plain data."""

    result_limit: int = RESULT_LIMIT
    working_dir: str | None = None
    sandbox: bool = False  # a directory of its own for each task
    allowed: tuple[str, ...] | None = None  # identifiers of serializers; None: any
    submitter: str | None = None  # versions on the submitting side, for the message when code cannot be read

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        return cls(**plain)


class Ran(NamedTuple):
    """How one call ended. Failed exactly when `error_code` is set; `data` is then the traceback text."""

    data: str
    error_code: str | None
    error_message: str | None
    started_ns: int
    ended_ns: int


class Runner:
    """Runs calls in this thread; `exclusive` says that the process runs nothing else, so its environment is free."""

    def __init__(self, options: TaskOptions, *, exclusive: bool) -> None:
        allowed = None if options.allowed is None else frozenset(options.allowed)
        self._serializer = Serializer(allowed_identifiers=allowed)
        self._options = options
        self._exclusive = exclusive

    def run(self, task: bytes, code: str, payload: str, serializers: Sequence[str] = ()) -> Ran:
        """Call the function with its arguments. Every way to fail is an outcome, told in the result."""
        started_ns = time.time_ns()
        try:
            self._prepare(task)
            function = self._function(code)
            args, kwargs = self._serializer.unpack_arguments(payload)
            value = function(*args, **kwargs)
            if type(value) is CoroutineType:
                value = _await(value)
            data = self._serializer.serialize_by(value, serializers)
        except BaseException as why:  # noqa: BLE001 - user code may raise anything, SystemExit and RecursionError included
            return Ran(*_failure(why), started_ns, time.time_ns())
        limit = self._options.result_limit
        if len(data) > limit:
            large = ResultTooLarge(size_bytes=len(data), limit_bytes=limit)
            return Ran(large.message(), large.code, large.message(), started_ns, time.time_ns())
        return Ran(data, None, None, started_ns, time.time_ns())

    def _prepare(self, task: bytes) -> None:
        text = task.hex()
        uuid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        if not self._exclusive:
            task_environment.set({"GC_TASK_UUID": uuid})
            return
        os.environ["GC_TASK_UUID"] = uuid
        if self._options.sandbox:
            folder = os.path.join(self._options.working_dir or ".", uuid)  # noqa: PTH118
            os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
            os.environ["GC_TASK_SANDBOX_DIR"] = folder
            os.chdir(folder)

    def _function(self, code: str) -> Any:
        try:
            return self._serializer.unpack_function(code)
        except CannotDeserialize as why:
            there = self._options.submitter or "an unknown version"
            raise CannotDeserialize(
                why=f"the function does not load here. {why.facts.get('why')}. "
                f"It was made with {there}; this worker has {versions()}. "
                "Install what the message names, submit from the same Python version, "
                "or send source instead of byte code: Executor(serializer=...AllCodeStrategies)."
            ) from None


def versions() -> str:
    """Python and dill of this process, in words."""
    facts = _facts()
    return f"Python {facts['python_version']} and dill {facts['dill_version']}"


@cache
def _facts() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "unknown"

    return {
        "os": platform.platform(),
        "python_version": platform.python_version(),
        "dill_version": installed("dill"),
        "globus_compute_sdk_version": f"muster-{installed('muster-compute')}",
    }


@cache
def details() -> str:
    """The `details` of every result of this process, as JSON."""
    import json

    return json.dumps(_facts())


def _await(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _failure(why: BaseException) -> tuple[str, str, str]:
    """Traceback text, code, one line for the user; never raises, whatever the exception does when it is printed."""
    if isinstance(why, (CannotDeserialize, CannotSerialize)) or (isinstance(why, MusterError) and _is_ours(why)):
        return why.message(), why.code, why.message()
    try:
        line = f"{type(why).__name__}: {why}"[:1000]
    except BaseException:  # noqa: BLE001 - its __str__ is user code too
        line = type(why).__name__
    try:
        text = _trace(why)
    except BaseException:  # noqa: BLE001 - the same while formatting it
        text = f"{line}\n(the traceback could not be printed)"
    return text, "RemoteExecutionError", line


def _is_ours(why: BaseException) -> bool:
    """Whether this package raised it, not the user's code that happens to use Muster."""
    last = why.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code.co_filename.startswith(_OURS)


def _trace(why: BaseException) -> str:
    import traceback

    text = "".join(traceback.format_exception(type(why), why, _users(why.__traceback__)))
    if len(text) > _MAX_TRACEBACK:
        half = _MAX_TRACEBACK // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def _users(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not ours; all of it when every frame is ours."""
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename.startswith(_OURS):
        at = at.tb_next
    return at or trace


def with_user_paths() -> None:
    """Let functions import what the user installed: the interpreter started isolated, so that it could start."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path.extend(entry for entry in entries if entry and entry not in sys.path)
    home = os.environ.get("HOME")
    if home and os.environ.get("PYTHONNOUSERSITE") is None and sys.prefix == sys.base_prefix:
        import site

        if os.path.isdir(folder := site.getusersitepackages()):  # noqa: PTH112
            site.addsitedir(folder)
