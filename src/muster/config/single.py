"""The config.yaml of a single-user endpoint: it registers, and it runs tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from muster.config.document import read_document, read_text
from muster.config.keys import Keys
from muster.config.manager import CONFIG, ignore_foreign
from muster.config.user_endpoint import UserEndpointConfig, user_endpoint_fields


@dataclass(frozen=True, slots=True)
class SingleConfig:
    """The task side in `endpoint`, what is registered beside it."""

    endpoint: UserEndpointConfig
    text: str = ""
    public: bool = False
    high_assurance: bool = False
    authentication_policy: UUID | None = None
    subscription_id: UUID | None = None
    admins: tuple[UUID, ...] = ()
    warnings: tuple[str, ...] = ()


def is_single(text: str, *, file: str) -> bool:
    """Whether this config.yaml is one of a single-user endpoint: it says what runs the tasks."""
    return "engine" in read_document(text, file).data


def load_single(directory: Path) -> SingleConfig:
    """Read `config.yaml` of a single-user endpoint's directory."""
    path = directory / CONFIG
    return read_single(read_text(path), file=str(path))


def read_single(text: str, *, file: str) -> SingleConfig:
    keys = Keys(read_document(text, file))
    if keys.flag("multi_user", default=False):
        raise keys.wrong("multi_user", "this file has an engine: a manager's file has none")
    ignore_foreign(keys)
    keys.ignore("email", "only managers announce a contact")
    config = SingleConfig(
        endpoint=user_endpoint_fields(keys),
        text=text,
        public=keys.flag("public", default=False),
        high_assurance=keys.flag("high_assurance", default=False),
        authentication_policy=keys.uuid("authentication_policy"),
        subscription_id=keys.uuid("subscription_id"),
        admins=keys.uuids("admins") or (),
        warnings=tuple(keys.warnings),
    )
    keys.end()
    return config
