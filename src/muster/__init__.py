"""Run functions on a site's computers as the right account: `from muster import Executor, Client`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muster.errors import MusterError
    from muster.sdk import Client, Executor, ShellFunction, TaskExecutionFailed, TaskPending

__version__ = "0.1.0"

_WHERE = {
    "Client": "muster.sdk",
    "Executor": "muster.sdk",
    "MusterError": "muster.errors",
    "ShellFunction": "muster.sdk",
    "TaskExecutionFailed": "muster.sdk",
    "TaskPending": "muster.sdk",
}

__all__ = ["Client", "Executor", "MusterError", "ShellFunction", "TaskExecutionFailed", "TaskPending", "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: `import muster` itself stays light."""
    if name not in _WHERE:
        raise AttributeError(f"module 'muster' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
