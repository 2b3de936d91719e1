"""A manager's config.yaml, as the agent reads it."""

from __future__ import annotations

import difflib
from typing import Any
from uuid import UUID

import msgspec

from muster.errors import ConfigInvalid

FILE = "config.yaml"
DEFAULT_PERIOD_S = 30
_SHORTEST_PERIOD_S = 5


class Configuration(msgspec.Struct, kw_only=True, frozen=True):
    """The official keys. Root reads the paths, `min_uid` and `agent_user` by itself; some keys have nothing to do here."""

    display_name: str | None = None
    multi_user: bool | None = None
    public: bool = False
    heartbeat_period: int = DEFAULT_PERIOD_S
    allowed_functions: list[str] | None = None
    authentication_policy: str | None = None
    subscription_id: str | None = None
    admins: list[str] | None = None
    high_assurance: bool = False
    debug: bool = False
    email: str | None = None
    amqp_port: int | None = None  # our service says itself where its broker is
    identity_mapping_config_path: str | None = None
    min_uid: int = 1000
    agent_user: str = "_muster"
    environment: str | None = None
    local_compute_services: bool = False
    mu_child_ep_grace_period_s: float = 30
    detach_endpoint: bool | None = None
    force_mu_allow_same_user: bool | None = None


def read_configuration(text: str, file: str = FILE) -> Configuration:
    """The configuration in this text; ConfigInvalid names the key and how to mend it."""
    import yaml

    try:
        document: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as why:
        raise ConfigInvalid(file=file, why=" ".join(str(why).split())) from None
    if not isinstance(document, dict):
        raise ConfigInvalid(file=file, why="it must be a list of `key: value` lines")
    for key in document:
        if key not in Configuration.__struct_fields__:
            near = difflib.get_close_matches(str(key), Configuration.__struct_fields__, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigInvalid(file=file, why=f"unknown key {key!r}{hint}")
    try:
        configuration = msgspec.convert(document, Configuration)
        for id_ in (*(configuration.allowed_functions or ()), *(configuration.admins or ())):
            UUID(id_)
    except msgspec.ValidationError as why:
        raise ConfigInvalid(file=file, why=str(why)) from None
    except ValueError:
        raise ConfigInvalid(file=file, why="allowed_functions and admins must be lists of UUIDs") from None
    if configuration.heartbeat_period < _SHORTEST_PERIOD_S:
        raise ConfigInvalid(file=file, why=f"heartbeat_period: {_SHORTEST_PERIOD_S} seconds at least")
    return configuration
