"""The single-user endpoint: started by a person in their own account, registered in their own name."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import muster
from muster.config import SingleConfig, load_single
from muster.endpoint import log as logs
from muster.endpoint.disk import Place
from muster.endpoint.links import Links
from muster.endpoint.report import BUNDLES
from muster.endpoint.serve import Assignment, UserEndpoint
from muster.errors import ConfigInvalid, Outage
from muster.rest import Rest
from muster.rest.errands import aside
from muster.transport.probe import warning
from muster.wire.rest import MusterPart, Registered, Registration

log = logging.getLogger(__name__)

_ID_FILE = "endpoint.json"


def run(
    directory: Path,
    *,
    ready: Callable[[UUID], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    rest: Rest | None = None,
) -> None:
    """Register, and run tasks until told to stop. `ready` is called with the id once it has checked in, `warn` with
    what is in the way of that.

    Raises the MusterError that ended it: ConfigInvalid, StartFailed, or what the service refused.
    """
    os.umask(0o077)
    config = load_single(directory)
    place = Place(config.endpoint.endpoint_dir or directory)
    place.take()
    try:
        path = config.endpoint.endpoint_log or place.directory / logs.NAME
        logs.to_file(path, debug=config.endpoint.debug, everything=False)
        for ignored in (*config.warnings, *config.endpoint.warnings):
            log.warning("%s", ignored)
        registrar = _Registrar(directory, config, rest or Rest())
        asyncio.run(_serve(registrar, config, place, ready, warn))
    finally:
        place.leave()


async def _serve(
    registrar: _Registrar,
    config: SingleConfig,
    place: Place,
    ready: Callable[[UUID], None],
    warn: Callable[[str], None],
) -> None:
    registered = await aside(registrar.register)
    if trouble := await aside(warning, registered.heartbeat_queue_info.connection_url):
        warn(trouble)
    links = Links.of_registration(registered, registrar.url)
    assignment = Assignment(
        links=links,
        config=config.endpoint,
        place=place,
        name=registrar.name,
        config_raw=config.text,
        ready=lambda: ready(links.endpoint),
    )
    await UserEndpoint(assignment).run()


class _Registrar:
    """Registers the endpoint, and again whenever a connection is made anew: credentials may have been replaced."""

    def __init__(self, directory: Path, config: SingleConfig, rest: Rest) -> None:
        self.name = directory.name
        self._path = directory / _ID_FILE
        self._config = config
        self._rest = rest
        self._fresh: str | None = None

    def register(self) -> Registered:
        """Create the endpoint, or tell the service of its present configuration."""
        known = self._known()
        method, path = ("PUT", f"/v3/endpoints/{known}") if known else ("POST", "/v3/endpoints")
        registered = self._rest.call(method, path, self._document(), Registered, repeatable=known is not None)
        for said in registered.warnings or ():
            log.warning("The service says: %s", said)
        if known is None:
            self._remember(registered.endpoint_id)
        if registered.task_queue_info is None:
            raise ConfigInvalid(file=str(self._path), why="this id is a manager's; remove the file to get a new one")
        self._fresh = registered.task_queue_info.connection_url
        return registered

    async def url(self) -> str:
        """The broker's URL with credentials that no connection has used yet."""
        if self._fresh is None:
            log.info("Registering again, for new credentials.")
            await aside(self.register)
        fresh, self._fresh = self._fresh, None
        if fresh is None:
            raise Outage(what="The service")
        return fresh

    def _document(self) -> Registration:
        config, endpoint = self._config, self._config.endpoint
        allowed = endpoint.allowed_functions
        return Registration(
            endpoint_name=self.name,
            display_name=endpoint.display_name,
            public=config.public,
            high_assurance=config.high_assurance,
            allowed_functions=None if allowed is None else [str(function) for function in allowed],
            authentication_policy=_text(config.authentication_policy),
            subscription_uuid=_text(config.subscription_id),
            admins=[str(admin) for admin in config.admins] or None,
            metadata=_metadata(config),
            muster=MusterPart(version=muster.__version__, kind="single", bundles=BUNDLES),
        )

    def _known(self) -> UUID | None:
        try:
            return UUID(json.loads(self._path.read_text())["endpoint_id"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as why:
            raise ConfigInvalid(file=str(self._path), why=f"holds no endpoint_id ({why})") from None

    def _remember(self, endpoint_id: str) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"endpoint_id": endpoint_id}) + "\n")
        fresh.replace(self._path)


def _metadata(config: SingleConfig) -> dict[str, Any]:
    return {
        "endpoint_version": muster.__version__,
        "hostname": socket.gethostname(),
        "local_user": getpass.getuser(),
        "python_version": platform.python_version(),
        "endpoint_config": config.text,
    }


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)
