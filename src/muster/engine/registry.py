"""Finds engines by the `type` in the configuration: the built-in three, and entry points of `muster.engines`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from muster.engine.contract import Engine
from muster.engine.options import only_known, refuse, suggestion

GROUP = "muster.engines"
_BUILT_IN = {
    "ThreadPoolEngine": ("muster.engine.thread", "ThreadEngine"),
    "ProcessPoolEngine": ("muster.engine.process", "ProcessEngine"),
    "GlobusComputeEngine": ("muster.engine.parsl", "ParslEngine"),
}


def build(config: Mapping[str, Any], path: str = "engine") -> Engine:
    """The engine that an `engine` block describes, not started; ConfigInvalid names the key that is wrong."""
    if not isinstance(config, Mapping):
        raise refuse(path, "must be a mapping with a `type`")
    name = config.get("type")
    if not isinstance(name, str):
        raise refuse(f"{path}.type", f"is missing; {suggestion('', known())}")
    maker = _find(name, path)
    values = {key: value for key, value in config.items() if key != "type"}
    keys = inspect.signature(maker).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in keys.values()):
        only_known(path, values, keys.keys())
    try:
        return maker(**values)
    except TypeError as why:
        raise refuse(path, str(why)) from why


def known() -> frozenset[str]:
    """Names that `type` may have."""
    return frozenset(_BUILT_IN) | {point.name for point in entry_points(group=GROUP)}


def _find(name: str, path: str) -> Callable[..., Engine]:
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        maker: Callable[..., Engine] = getattr(import_module(module), attribute)
        return maker
    points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise refuse(f"{path}.type", f"there is no engine {name!r}; {suggestion(name, known())}")
    loaded: Callable[..., Engine] = points[name].load()
    return loaded
