"""Keys that every engine understands, and the one way to refuse a key or value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.errors import ConfigInvalid
from muster.serialize.serializer import allowed
from muster.worker.task import RESULT_LIMIT, TaskOptions


def refuse(path: str, why: str) -> ConfigInvalid:
    """The error for one place in the engine's configuration."""
    return ConfigInvalid(file=path, why=why)


def suggestion(name: str, known: Collection[str]) -> str:
    """`did you mean ...?` and the list of what exists."""
    close = difflib.get_close_matches(name, known, 1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(sorted(known))}."


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """How tasks run, on any engine."""

    task: TaskOptions
    timeout_s: float | None

    @classmethod
    def of(
        cls,
        *,
        working_dir: str | None,
        run_in_sandbox: bool,
        allowed_serializers: list[str] | None,
        task_timeout_s: float | None,
        result_size_limit: int | None,
    ) -> CommonOptions:
        names = None if allowed_serializers is None else tuple(sorted(allowed(allowed_serializers)))
        folder = working_dir or ("tasks_working_dir" if run_in_sandbox else None)
        task = TaskOptions(
            result_limit=positive("engine.result_size_limit", result_size_limit, RESULT_LIMIT),
            working_dir=None if folder is None else os.path.expandvars(os.path.expanduser(folder)),  # noqa: PTH111
            sandbox=run_in_sandbox,
            allowed=names,
            submitter=os.environ.get("MUSTER_SUBMITTER"),
        )
        return cls(task, _timeout_s(task_timeout_s))

    def at(self, workdir: Path) -> CommonOptions:
        """The same, with the tasks' directory below the engine's when it was given as a relative path."""
        if self.task.working_dir is None:
            return self
        return replace(self, task=replace(self.task, working_dir=str((workdir / self.task.working_dir).resolve())))


def _timeout_s(configured: float | None) -> float | None:
    text = os.environ.get("GC_TASK_TIMEOUT") if configured is None else configured
    if text is None or text == "":
        return None
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise refuse("engine.task_timeout_s (or GC_TASK_TIMEOUT)", f"{text!r} is no positive number of seconds")
    return seconds


def positive(path: str, value: Any, default: int) -> int:
    """A whole number above zero."""
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refuse(path, f"{value!r} is no whole number above zero")
    return value


def only_known(path: str, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse keys that nothing would read, with the likely right one."""
    for key in config:
        if key not in known:
            raise refuse(f"{path}.{key}", f"unknown key; {suggestion(str(key), known)}")
