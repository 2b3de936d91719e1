"""What a configuration may name of Parsl: explicit tables, and arguments checked before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from muster.engine.options import only_known, refuse, suggestion

Table = Mapping[str, tuple[str, str]]  # name -> module, attribute

PROVIDERS: Table = {
    "LocalProvider": ("parsl.providers.local.local", "LocalProvider"),
    "SlurmProvider": ("parsl.providers.slurm.slurm", "SlurmProvider"),
    "PBSProProvider": ("parsl.providers.pbspro.pbspro", "PBSProProvider"),
    "TorqueProvider": ("parsl.providers.torque.torque", "TorqueProvider"),
    "LSFProvider": ("parsl.providers.lsf.lsf", "LSFProvider"),
    "GridEngineProvider": ("parsl.providers.grid_engine.grid_engine", "GridEngineProvider"),
    "CondorProvider": ("parsl.providers.condor.condor", "CondorProvider"),
    "KubernetesProvider": ("parsl.providers.kubernetes.kube", "KubernetesProvider"),
    "AWSProvider": ("parsl.providers.aws.aws", "AWSProvider"),
    "GoogleCloudProvider": ("parsl.providers.googlecloud.googlecloud", "GoogleCloudProvider"),
    "AzureProvider": ("parsl.providers.azure.azure", "AzureProvider"),
}
LAUNCHERS: Table = {
    name: ("parsl.launchers.launchers", name)
    for name in (
        "SimpleLauncher",
        "SingleNodeLauncher",
        "SrunLauncher",
        "SrunMPILauncher",
        "AprunLauncher",
        "JsrunLauncher",
        "GnuParallelLauncher",
        "MpiExecLauncher",
        "MpiRunLauncher",
        "WrappedLauncher",
    )
}
ADDRESSES: Table = {
    name: ("parsl.addresses", name)
    for name in ("address_by_interface", "address_by_hostname", "address_by_route", "address_by_query")
}
SELECTORS: Table = {
    name: ("parsl.executors.high_throughput.manager_selector", name)
    for name in ("RandomManagerSelector", "BlockIdManagerSelector")
}


def check_type(path: str, value: Any, table: Table) -> None:
    """Refuse what names nothing in the table; needs no Parsl."""
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise refuse(path, f"must be a mapping with a `type`. {suggestion('', table)}")
    if value["type"] not in table:
        raise refuse(f"{path}.type", f"there is no {value['type']!r}; {suggestion(value['type'], table)}")


def make(path: str, value: Mapping[str, Any], table: Table) -> Any:
    """The object that a block describes."""
    check_type(path, value, table)
    module, attribute = table[value["type"]]
    try:
        maker = getattr(import_module(module), attribute)
    except ImportError as why:
        raise refuse(f"{path}.type", f"{value['type']} needs software that is not installed: {why}") from why
    given = {key: item for key, item in value.items() if key != "type"}
    arguments = _arguments(path, maker, given)
    try:
        return maker(**arguments)
    except Exception as why:
        # Parsl's constructors check types, import cloud packages and ask for addresses: all of it is told at its place.
        raise refuse(path, f"{value['type']}: {' '.join(str(why).split())}") from why


def _arguments(path: str, maker: Any, given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(maker).parameters
    only_known(path, given, parameters.keys())
    arguments = {}
    for key, item in given.items():
        default = parameters[key].default
        if item is None and default not in (None, inspect.Parameter.empty):
            continue  # an empty place in the template means: the default
        arguments[key] = _fit(path, key, item, str(parameters[key].annotation), default)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    for name in missing:
        if name not in arguments:
            raise refuse(f"{path}.{name}", "is missing")
    return arguments


def _fit(path: str, key: str, item: Any, annotation: str, default: Any) -> Any:
    """The value as Parsl wants it."""
    if key == "launcher" and isinstance(item, Mapping):
        return make(f"{path}.launcher", item, LAUNCHERS)
    if isinstance(item, int) and not isinstance(item, bool):
        if key == "walltime":
            return f"{item // 3600:02}:{item // 60 % 60:02}:{item % 60:02}"  # YAML reads 1:00:00 as a number
        text = isinstance(default, str) or ("str" in annotation and "int" not in annotation)
        if text or key in ("account", "queue", "partition", "qos", "project", "constraint"):
            return str(item)  # an account may be all digits
    return item
