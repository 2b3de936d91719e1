"""The keys of a GlobusComputeEngine block, checked without Parsl; then what Parsl is given."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.engine.options import only_known, refuse, suggestion
from muster.engine.parsl.kinds import ADDRESSES, PROVIDERS, SELECTORS, check_type, make

_MAX_IDLETIME_S = 120.0  # the official default
_STRATEGIES = {
    "simple": True,
    "htex_auto_scale": True,
    "none": False,
    "SimpleStrategy": True,
    "HtexAutoScaleStrategy": True,
    "NoneStrategy": False,
}
_CONTAINERS = {
    "docker": "docker run --rm {options} -v {run_dir}:{run_dir} {uri} {command}",
    "podman": "podman run --rm {options} -v {run_dir}:{run_dir} {uri} {command}",
    "podman-hpc": "podman-hpc run --rm {options} -v {run_dir}:{run_dir} {uri} {command}",
    "apptainer": "apptainer exec {options} {uri} {command}",
    "singularity": "singularity exec {options} {uri} {command}",
}
# Keys that go to the executor as they are; which of them exist, and their types, Parsl itself decides.
PASSED_ON = frozenset(
    {
        "loopback_address",
        "worker_port",
        "worker_port_range",
        "interchange_port_range",
        "worker_debug",
        "cores_per_worker",
        "mem_per_worker",
        "max_workers_per_node",
        "cpu_affinity",
        "available_accelerators",
        "prefetch_capacity",
        "heartbeat_threshold",
        "heartbeat_period",
        "drain_period",
        "poll_period",
        "address_probe_timeout",
        "worker_logdir_root",
        "launch_cmd",
        "interchange_launch_cmd",
        "encrypted",
    }
)
_COMMON = {
    "working_dir": None,
    "run_in_sandbox": False,
    "allowed_serializers": None,
    "task_timeout_s": None,
    "result_size_limit": None,
}
_OUR_OWN = {
    "address",
    "container_cmd_options",
    "container_type",
    "container_uri",
    "job_status_kwargs",
    "label",
    "manager_selector",
    "max_retries_on_system_failure",
    "provider",
    "strategy",
}


@dataclass(frozen=True, slots=True)
class Scaling:
    """When blocks come and go."""

    enabled: bool = True
    max_idletime_s: float = _MAX_IDLETIME_S

    @classmethod
    def of(cls, strategy: Any, job_status: Mapping[str, Any] | None) -> Scaling:
        """From `strategy` (the seed's form, a mapping or a name) and `job_status_kwargs` (the newer form)."""
        status = dict(job_status or {})
        only_known("engine.job_status_kwargs", status, {"strategy", "max_idletime", "strategy_period"})
        given = dict(strategy) if isinstance(strategy, Mapping) else {"type": strategy}
        only_known("engine.strategy", given, {"type", "max_idletime", "strategy_period"})
        name = given.get("type") or status.get("strategy") or "simple"
        if name not in _STRATEGIES:
            raise refuse("engine.strategy.type", f"there is no {name!r}; {suggestion(str(name), _STRATEGIES)}")
        idle = given.get("max_idletime", status.get("max_idletime", _MAX_IDLETIME_S))
        if not isinstance(idle, (int, float)) or isinstance(idle, bool) or idle < 0:
            raise refuse("engine.strategy.max_idletime", f"{idle!r} is no number of seconds")
        return cls(_STRATEGIES[name], float(idle))


@dataclass(frozen=True, slots=True)
class Container:
    """What the workers run inside of."""

    kind: str
    uri: str | None
    options: str

    @classmethod
    def of(cls, kind: str | None, uri: str | None, options: str | None) -> Container | None:
        if kind is None:
            if uri or options:
                raise refuse("engine.container_type", "is missing, but other container keys are set")
            return None
        if kind not in (*_CONTAINERS, "custom"):
            raise refuse("engine.container_type", f"there is no {kind!r}; {suggestion(kind, [*_CONTAINERS, 'custom'])}")
        if kind != "custom" and not uri:
            raise refuse("engine.container_uri", "is missing")
        if kind == "custom" and "{EXECUTOR_LAUNCH_CMD}" not in (options or ""):
            raise refuse("engine.container_cmd_options", "must hold {EXECUTOR_LAUNCH_CMD}")
        return cls(kind, uri, options or "")

    def around(self, command: str, run_dir: Path) -> str:
        """The command, inside."""
        if self.kind == "custom":
            filled = self.options.replace("{EXECUTOR_RUNDIR}", shlex.quote(str(run_dir)))
            return filled.replace("{EXECUTOR_LAUNCH_CMD}", command)
        return _CONTAINERS[self.kind].format(
            options=self.options, run_dir=shlex.quote(str(run_dir)), uri=shlex.quote(self.uri or ""), command=command
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole block."""

    label: str
    address: Any
    provider: Mapping[str, Any]
    manager_selector: Mapping[str, Any] | None
    scaling: Scaling
    container: Container | None
    retries: int
    common: Mapping[str, Any]  # keys that all engines have
    passed_on: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """From the block; ConfigInvalid for all that can be known to be wrong without importing Parsl."""
        only_known("engine", config, PASSED_ON | _OUR_OWN | _COMMON.keys())
        get = config.get
        retries = get("max_retries_on_system_failure") or 0
        if not isinstance(retries, int) or retries < 0:
            raise refuse("engine.max_retries_on_system_failure", f"{retries!r} is no whole number")
        settings = cls(
            label=get("label") or "GlobusComputeEngine",
            address=get("address"),
            provider=get("provider") or {"type": "LocalProvider"},
            manager_selector=get("manager_selector"),
            scaling=Scaling.of(get("strategy"), get("job_status_kwargs")),
            container=Container.of(get("container_type"), get("container_uri"), get("container_cmd_options")),
            retries=retries,
            common={key: default if get(key) is None else get(key) for key, default in _COMMON.items()},
            passed_on={key: value for key, value in config.items() if key in PASSED_ON},
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse types that no table names."""
        check_type("engine.provider", self.provider, PROVIDERS)
        if isinstance(self.address, Mapping):
            check_type("engine.address", self.address, ADDRESSES)
        elif self.address is not None and not isinstance(self.address, str):
            raise refuse("engine.address", "must be an address, or a mapping with a `type`")
        if self.manager_selector is not None:
            check_type("engine.manager_selector", self.manager_selector, SELECTORS)

    def executor(self, run_dir: Path) -> Any:
        """Parsl's executor, not started; ConfigInvalid with the path of what is wrong."""
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD, HighThroughputExecutor

        provider = make("engine.provider", self.provider, PROVIDERS)
        values = {key: value for key, value in self.passed_on.items() if value is not None}
        for key in ("worker_port_range", "interchange_port_range"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])  # YAML has no tuples
        for key in ("cores_per_worker", "mem_per_worker"):
            if isinstance(values.get(key), int):
                values[key] = float(values[key])
        values.setdefault("heartbeat_period", 15)
        values.setdefault("heartbeat_threshold", 60)
        launch = values.pop("launch_cmd", None) or self._launch(DEFAULT_LAUNCH_CMD, provider)
        values["launch_cmd"] = self.container.around(launch, run_dir) if self.container else launch
        values.setdefault("interchange_launch_cmd", [sys.executable, "-I", "-m", "muster.engine.parsl.interchange"])
        if self.manager_selector is not None:
            values["manager_selector"] = make("engine.manager_selector", self.manager_selector, SELECTORS)
        address = self.address
        if isinstance(address, Mapping):
            address = make("engine.address", address, ADDRESSES)
        elif address is None and self.provider["type"] == "LocalProvider":
            address = "127.0.0.1"  # the workers are here; nothing listens to the network
        only_known("engine", values, inspect.signature(HighThroughputExecutor).parameters.keys())
        try:
            executor = HighThroughputExecutor(
                label=self.label, provider=provider, address=address, block_error_handler=False, **values
            )
        except Exception as why:
            # Parsl checks types in its own way; the message names the argument.
            raise refuse("engine", " ".join(str(why).split())) from why
        return executor

    def _launch(self, command: str, provider: Any) -> str:
        """The pool program beside our interpreter; where an environment is activated first, the one in there."""
        program = "process_worker_pool.py"
        if self.container is not None:
            return str(command)
        if getattr(provider, "worker_init", ""):
            ours = shlex.quote(str(Path(sys.executable).parent))
            return str(command.replace(program, f'env PATH="$PATH":{ours} {program}', 1))
        pool = f"{shlex.quote(sys.executable)} -I -m parsl.executors.high_throughput.process_worker_pool"
        return str(command.replace(program, pool, 1))
