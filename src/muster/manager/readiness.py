"""Before a manager starts: whether its files can be used, and whether its broker can be reached from here."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from muster.config import ManagerConfig, check_schema, check_template, read_environment, read_manager, read_schema
from muster.config.manager import CONFIG, ENVIRONMENT, SCHEMA, TEMPLATES
from muster.manager.rootlink import Site

_CONNECT_S = 3.0
_PORTS = {"amqp": 5672, "amqps": 5671}


def checked(site: Site) -> ManagerConfig:
    """The configuration, when all four files can be used; ConfigInvalid names the file, the place and the fix."""
    configuration = read_manager(site.config, file=CONFIG, directory=Path())
    read_environment(site.environment, ENVIRONMENT)
    check_template(site.template, str(configuration.user_config_template_path or TEMPLATES[0]))
    file = str(configuration.user_config_schema_path or SCHEMA)
    schema = read_schema(site.schema, file)
    if schema is not None:
        check_schema(schema, file)
    return configuration


def unreachable(url: str) -> str | None:
    """Why nobody answers at this broker's address; None when somebody listens there."""
    parts = urlsplit(url)
    place = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 5672)
    try:
        socket.create_connection(place, _CONNECT_S).close()
    except OSError as why:
        reason = "no answer" if isinstance(why, TimeoutError) else os.strerror(why.errno or 0).lower()
        return f"{place[0]}:{place[1]}: {why.strerror if isinstance(why, socket.gaierror) else reason}"
    return None
