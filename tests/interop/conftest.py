"""Fixtures of this folder."""

from __future__ import annotations

from interop.stage import official, site

__all__ = ["official", "site"]
