"""Checks a user's values against the site's JSON schema, before anything else looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.config import check_schema, read_schema
from muster.errors import ConfigInvalid, Invalid

_SHOWN = 3
_SIMPLE = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "type", "properties", "additionalProperties"}
)
_SIMPLE_PROPERTY = frozenset({"$comment", "title", "description", "default", "examples", "type"})
_TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "boolean": bool, "object": dict, "array": list}


def validate(values: Mapping[str, Any], schema: str, *, file: str = "user_config_schema.json") -> None:
    """Return if `values` fit. Invalid tells the user what does not; ConfigInvalid that the site's schema is broken."""
    document = read_schema(schema, file)
    if document is not None and not _plainly_valid(dict(values), document):
        _validate(dict(values), document, file)


def _plainly_valid(values: dict[str, Any], schema: Any) -> bool:
    """Whether a simple schema is met. It spares nearly every start the import of a validator, a third of the time."""
    if schema is True:
        return True
    if not isinstance(schema, dict) or not _SIMPLE.issuperset(schema) or schema.get("type", "object") != "object":
        return False
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or schema.get("additionalProperties", True) not in (True, False):
        return False
    if not schema.get("additionalProperties", True) and not properties.keys() >= values.keys():
        return False
    return all(_plainly_typed(values[name], properties[name]) for name in properties.keys() & values.keys())


def _plainly_typed(value: Any, schema: Any) -> bool:
    if schema is True:
        return True
    if not isinstance(schema, dict) or not _SIMPLE_PROPERTY.issuperset(schema):
        return False
    wanted = schema.get("type")
    return isinstance(wanted, str) and wanted in _TYPES and isinstance(value, _TYPES[wanted])


def _validate(values: dict[str, Any], schema: Any, file: str) -> None:
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        chosen = check_schema(schema, file)
        # An empty registry: a `$ref` that points elsewhere is an error, never a download.
        errors = sorted(
            chosen(schema, registry=Registry()).iter_errors(values), key=lambda error: list(map(str, error.path))
        )
    except Unresolvable as why:
        raise ConfigInvalid(file=file, why=f"refers to {why.ref!r}, which is not in this file") from None
    except RecursionError:
        raise ConfigInvalid(file=file, why="is nested too deeply, or refers to itself without end") from None
    if errors:
        told = "; ".join(
            f"{error.json_path.replace('$', 'user_endpoint_config', 1)}: {error.message[:300]}"
            for error in errors[:_SHOWN]
        )
        more = f" (and {len(errors) - _SHOWN} more)" if len(errors) > _SHOWN else ""
        raise Invalid(why=f"{told}{more}")
