"""The Client that Executors share when they are given none: one thread reads the results of all of them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.sdk.client import Client

_DECIDING = ("MUSTER_SERVICE_URL", "MUSTER_CLIENT_ID", "MUSTER_CLIENT_SECRET", "MUSTER_HOME")
_clients: dict[tuple[str | None, ...], Client] = {}
_lock = threading.Lock()


def shared_client() -> Client:
    """The same Client for the same environment."""
    from muster.sdk.client import Client

    key = tuple(map(os.environ.get, _DECIDING))
    with _lock:
        client = _clients.get(key)
        if client is None:
            client = Client()
            _clients[key] = client
        return client


def _forget() -> None:
    global _lock  # noqa: PLW0603 - the parent may hold it at the moment of the fork
    _lock = threading.Lock()
    _clients.clear()


# Threads do not survive a fork: a child that shared its parent's Client would wait for a reader that is not there.
os.register_at_fork(after_in_child=_forget)
