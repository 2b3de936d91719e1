"""Who may ask: the OAuth 2.0 and OpenID Connect provider, its pages, and the accounts behind them."""

from __future__ import annotations

from muster.identity.authority import Authority
from muster.identity.people import NewClient, People

__all__ = ["Authority", "NewClient", "People"]
