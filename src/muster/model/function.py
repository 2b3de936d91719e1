"""A registered function: opaque code that the service stores and never looks into."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Function:
    """What a user registered under one id; `code` is a packed buffer (protocol: `LENGTH\\nBUFFER`)."""

    id: UUID
    owner: UUID
    name: str
    code: str
    description: str | None = None
    public: bool = False
    group: UUID | None = None
    metadata: str = "{}"  # JSON
    created_at_s: float = 0.0
