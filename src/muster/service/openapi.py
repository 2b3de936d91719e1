"""The description of the API, made from the very table and types that answer it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

import muster
from muster.service.calls import Call
from muster.wire.rest import ErrorDocument

_REFERENCE = "#/components/schemas/{name}"
_JSON = "application/json"


def description(calls: Iterable[Call]) -> dict[str, Any]:
    """An OpenAPI 3.1 document; routes that only a broker calls are left out."""
    shown = [call for call in calls if call.access != "secret"]
    types = {kind for call in shown for kind in (call.takes, call.gives) if kind is not None} | {ErrorDocument}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for call in shown:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Muster", "version": muster.__version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(call: Call) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": call.summary,
        "responses": {
            "200": {"description": "Done", **_content(call.gives)},
            "default": {"description": "Refused, and why", **_content(ErrorDocument)},
        },
    }
    names = re.findall(r"{(\w+)}", call.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if call.takes is not None:
        operation["requestBody"] = {"required": True, **_content(call.takes)}
    if call.access == "user":
        operation["security"] = [{"token": []}]
    return operation


def _content(kind: type[msgspec.Struct] | None) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(name=kind.__name__)} if kind is not None else {}
    return {"content": {_JSON: {"schema": schema}}}
