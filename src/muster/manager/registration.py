"""What a manager says of itself to the service."""

from __future__ import annotations

import getpass
import platform
import socket
from pathlib import Path
from typing import Any
from uuid import UUID

import muster
from muster.config import ManagerConfig, read_manager, read_schema
from muster.config.manager import CONFIG, SCHEMA
from muster.errors import NotFound
from muster.manager.rootlink import Hello, Site
from muster.rest import Rest
from muster.wire.bundle import VERSION
from muster.wire.rest import MusterPart, Registered, Registration


def register(rest: Rest, hello: Hello, site: Site, *, new_seal_key: bool = False) -> Registered:
    """Make this manager known, or known again. Safe to repeat once it has an id."""
    body = document(hello, site, read_manager(site.config, file=CONFIG, directory=Path()), new_seal_key=new_seal_key)
    if hello.endpoint_id:
        return rest.call("PUT", f"/v3/endpoints/{hello.endpoint_id}", body, Registered, repeatable=not new_seal_key)
    return rest.call("POST", "/v3/endpoints", body, Registered)


def known(rest: Rest, endpoint_id: str) -> bool:
    """Whether the service still has it: one that lost its data does not hold our seal key either."""
    try:
        rest.call("GET", f"/v2/endpoints/{endpoint_id}")
    except NotFound:
        return False
    return True


def document(hello: Hello, site: Site, configuration: ManagerConfig, *, new_seal_key: bool) -> Registration:
    allowed = configuration.allowed_functions
    return Registration(
        endpoint_name=hello.name,
        multi_user=hello.privileged,
        public=configuration.public,
        high_assurance=configuration.high_assurance,
        display_name=configuration.display_name,
        allowed_functions=None if allowed is None else [str(function) for function in allowed],
        authentication_policy=_text(configuration.authentication_policy),
        subscription_uuid=_text(configuration.subscription_id),
        admins=[str(admin) for admin in configuration.admins] or None,
        metadata=_metadata(site),
        muster=MusterPart(version=muster.__version__, kind="manager", bundles=VERSION, new_seal_key=new_seal_key),
    )


def _metadata(site: Site) -> dict[str, Any]:
    return {
        "endpoint_version": muster.__version__,
        "python_version": platform.python_version(),
        "hostname": socket.gethostname(),
        "local_user": getpass.getuser(),
        "endpoint_config": site.config,
        "user_config_template": site.template,
        "user_config_schema": read_schema(site.schema, SCHEMA),
    }


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)
