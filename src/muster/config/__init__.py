"""Configuration files: strict YAML, read into frozen dataclasses. An error names file, place, key and fix."""

from __future__ import annotations

from muster.config.checks import check_schema, check_template, read_environment, read_schema
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
    "check_schema",
    "check_template",
    "is_single",
    "load_manager",
    "load_single",
    "read_document",
    "read_environment",
    "read_manager",
    "read_schema",
    "read_single",
    "read_text",
    "read_user_endpoint",
]
