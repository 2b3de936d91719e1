"""Configuration files: strict YAML, read into frozen dataclasses. An error names file, place, key and fix."""

from __future__ import annotations

from muster.config.document import Document, read_document, read_text
from muster.config.manager import ManagerConfig, PamConfig, load_manager, read_manager
from muster.config.single import SingleConfig, is_single, load_single, read_single
from muster.config.user_endpoint import UserEndpointConfig, read_user_endpoint

__all__ = [
    "Document",
    "ManagerConfig",
    "PamConfig",
    "SingleConfig",
    "UserEndpointConfig",
    "is_single",
    "load_manager",
    "load_single",
    "read_document",
    "read_manager",
    "read_single",
    "read_text",
    "read_user_endpoint",
]
