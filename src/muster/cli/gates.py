"""The two ways to the broker: the one inside this process, and a RabbitMQ."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import quote, unquote, urlsplit

from muster.broker.server import Broker
from muster.cli.plan import with_credentials, without_credentials

log = logging.getLogger(__name__)

_TIMEOUT_S = 10


class EmbeddedGate:
    """To the broker in this process. `place` is known once it listens."""

    def __init__(self, broker: Broker, place: str) -> None:
        self._broker = broker
        self.place = place

    def url(self, username: str, password: str) -> str:
        return with_credentials(self.place, username, password)

    async def disconnect(self, usernames: Sequence[str]) -> None:
        self._broker.disconnect(usernames)


class RabbitGate:
    """To a RabbitMQ, which asks us about every login. Only its management API can close connections."""

    def __init__(self, admin_url: str, place: str | None, management: str | None) -> None:
        self.place = place or without_credentials(admin_url)
        self._management = management
        parts = urlsplit(admin_url)
        secret = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self._authorization = "Basic " + base64.b64encode(secret.encode()).decode()

    def url(self, username: str, password: str) -> str:
        return with_credentials(self.place, username, password)

    async def disconnect(self, usernames: Sequence[str]) -> None:
        if self._management is None:
            log.warning("%d revoked account(s) may stay connected: --amqp-management is not set", len(usernames))
            return
        await asyncio.to_thread(self._close_all, list(usernames))

    def _close_all(self, usernames: list[str]) -> None:
        parts = urlsplit(self._management or "")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.netloc, timeout=_TIMEOUT_S)
        headers = {"Authorization": self._authorization, "X-Reason": "credentials revoked"}
        try:
            for username in usernames:
                connection.request("DELETE", f"/api/connections/username/{quote(username, safe='')}", headers=headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status not in (204, 404):
                    log.warning("RabbitMQ answered %d when %s was to be disconnected", answer.status, username)
        except (OSError, HTTPException) as why:
            log.warning("RabbitMQ's management API cannot be reached: %s", why)
        finally:
            connection.close()
