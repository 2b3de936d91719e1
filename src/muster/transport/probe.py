"""Whether a broker can be reached from here: a firewall may let the service's port through, and not the broker's."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

_CONNECT_S = 3.0


def unreachable(url: str) -> str | None:
    """Why nobody answers at this broker's address; None when somebody listens there."""
    parts = urlsplit(url)
    place = parts.hostname or "", parts.port or (5671 if parts.scheme == "amqps" else 5672)
    try:
        socket.create_connection(place, _CONNECT_S).close()
    except socket.gaierror as why:
        return f"{place[0]}: {why.strerror}"
    except TimeoutError:
        return f"{place[0]}:{place[1]}: no answer"
    except OSError as why:
        return f"{place[0]}:{place[1]}: {os.strerror(why.errno or 0).lower()}"
    return None


def warning(url: str) -> str | None:
    """What to tell whoever starts an endpoint here; None when all is well."""
    why = unreachable(url)
    if why is None:
        return None
    return f"The broker cannot be reached ({why}), so no tasks arrive here. Open that port to this machine."
