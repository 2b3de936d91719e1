"""The blocking side of REST: one client, its tokens, and the login of a person at a terminal."""

from __future__ import annotations

from muster.rest.client import Rest, service_url

__all__ = ["Rest", "service_url"]
