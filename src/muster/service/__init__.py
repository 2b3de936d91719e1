"""The service: REST, task flow, launches. Composed with a store, a broker and an identity by `muster serve`."""

from __future__ import annotations

from muster.service.service import Service
from muster.service.settings import Settings

__all__ = ["Service", "Settings"]
