"""What a researcher uses: Executor, Client, futures, shell functions. Names load when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muster.sdk.bar import progress
    from muster.sdk.batch import Batch
    from muster.sdk.client import Client
    from muster.sdk.errors import (
        DeserializationError,
        SerializationError,
        TaskExecutionFailed,
        TaskPending,
        VersionMismatch,
    )
    from muster.sdk.executor import Executor
    from muster.sdk.futures import ComputeFuture
    from muster.serialize.shell import MPIFunction, ShellFunction, ShellResult

_WHERE = {
    "Batch": "muster.sdk.batch",
    "Client": "muster.sdk.client",
    "ComputeFuture": "muster.sdk.futures",
    "DeserializationError": "muster.sdk.errors",
    "Executor": "muster.sdk.executor",
    "MPIFunction": "muster.serialize.shell",
    "SerializationError": "muster.sdk.errors",
    "ShellFunction": "muster.serialize.shell",
    "ShellResult": "muster.serialize.shell",
    "TaskExecutionFailed": "muster.sdk.errors",
    "TaskPending": "muster.sdk.errors",
    "VersionMismatch": "muster.sdk.errors",
    "progress": "muster.sdk.bar",
}

__all__ = [
    "Batch",
    "Client",
    "ComputeFuture",
    "DeserializationError",
    "Executor",
    "MPIFunction",
    "SerializationError",
    "ShellFunction",
    "ShellResult",
    "TaskExecutionFailed",
    "TaskPending",
    "VersionMismatch",
    "progress",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'muster.sdk' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
