"""What a user endpoint runs with: a rendered template, or the task side of a single-user config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from muster.config.document import Document
from muster.config.keys import Keys


@dataclass(frozen=True, slots=True)
class UserEndpointConfig:
    """Field names are the keys of the file; periods are seconds. `engine` is read by the engine registry."""

    engine: Mapping[str, Any] = field(default_factory=dict)
    display_name: str | None = None
    amqp_port: int | None = None
    heartbeat_period: float = 30
    heartbeat_threshold: float = 120
    idle_heartbeats_soft: int = 0  # 0: never stop for idleness
    idle_heartbeats_hard: int = 5760
    endpoint_setup: str = ""
    endpoint_teardown: str = ""
    endpoint_dir: Path | None = None
    endpoint_log: Path | None = None
    debug: bool = False
    allowed_functions: tuple[UUID, ...] | None = None
    warnings: tuple[str, ...] = ()


def read_user_endpoint(document: Document) -> UserEndpointConfig:
    """The configuration in a rendered template."""
    keys = Keys(document)
    for name in ("high_assurance", "multi_user", "identity_mapping_config_path"):
        keys.forbid(name, "it belongs in the manager's config.yaml, not in the template")
    keys.ignore("environment", "set MUSTER_SERVICE_URL to choose the service")
    keys.ignore("local_compute_services", "set MUSTER_SERVICE_URL to choose the service")
    keys.ignore("detach_endpoint", "the manager decides how user endpoints run")
    config = user_endpoint_fields(keys)
    keys.end()
    return config


def user_endpoint_fields(keys: Keys) -> UserEndpointConfig:
    """Read the task side from a mapping that may hold more; the caller calls `keys.end()`."""
    endpoint_dir, endpoint_log = _paths(keys)
    return UserEndpointConfig(
        engine=_engine(keys),
        display_name=keys.text("display_name"),
        amqp_port=keys.whole_or_none("amqp_port", least=1, most=65535),
        heartbeat_period=keys.number("heartbeat_period", 30, least=1, most=3600),
        heartbeat_threshold=keys.number("heartbeat_threshold", 120, least=1),
        idle_heartbeats_soft=keys.whole("idle_heartbeats_soft", 0, least=0),
        idle_heartbeats_hard=keys.whole("idle_heartbeats_hard", 5760, least=0),
        endpoint_setup=keys.text("endpoint_setup", "") or "",
        endpoint_teardown=keys.text("endpoint_teardown", "") or "",
        endpoint_dir=endpoint_dir,
        endpoint_log=endpoint_log,
        debug=keys.flag("debug", default=False),
        allowed_functions=keys.uuids("allowed_functions"),
        warnings=tuple(keys.warnings),
    )


def _engine(keys: Keys) -> Mapping[str, Any]:
    engine = keys.mapping("engine")
    if engine is None:
        raise keys.wrong("engine", "it is missing: say what runs the tasks, as in engine: {type: ProcessPoolEngine}")
    return engine


def _paths(keys: Keys) -> tuple[Path | None, Path | None]:
    block = keys.block("paths")
    if block is None:
        return None, None
    home = Path.home()
    found = block.file("endpoint_dir", home), block.file("endpoint_log", home)
    block.end()
    return found
