from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from muster.endpoint.schema import validate
from muster.errors import ConfigInvalid, Invalid

DEFAULT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"endpoint_setup": {"type": "string"}, "worker_init": {"type": "string"}},
    "additionalProperties": True,
}


@pytest.mark.parametrize("values", [{}, {"worker_init": "x"}, {"worker_init": "x", "other": [1]}])
def test_the_default_schema_takes_texts_and_anything_else(values: dict[str, Any]) -> None:
    validate(values, json.dumps(DEFAULT))


@pytest.mark.parametrize(
    ("values", "schema", "expected"),
    [
        ({"worker_init": 5}, DEFAULT, "user_endpoint_config.worker_init: 5 is not of type 'string'"),
        ({"x": 1}, {"additionalProperties": False}, "'x' was unexpected"),
        ({}, {"required": ["A"]}, "'A' is a required property"),
        ({"n": True}, {"properties": {"n": {"type": "integer"}}}, "True is not of type 'integer'"),
        ({"a": [1, "b"]}, {"properties": {"a": {"items": {"type": "string"}}}}, "user_endpoint_config.a[0]"),
        ({"q": "x"}, {"properties": {"q": {"type": "string", "enum": ["a", "b"]}}}, "is not one of"),
        ({}, {"type": "array"}, "is not of type 'array'"),
        ({}, {"minProperties": 1}, "user_endpoint_config"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path(values: dict[str, Any], schema: Any, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        validate(values, json.dumps(schema))
    assert expected in caught.value.message()


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("{", "is not JSON"),
        ('{"type": "strin"}', "is no JSON schema"),
        ('{"$ref": "http://127.0.0.1:9/schema.json"}', "refers to"),
        ('{"$ref": "file:///etc/passwd"}', "refers to"),
        ("[1]", "is no JSON schema"),
        ('{"$ref": "#"}', "without end"),
    ],
)
def test_a_broken_schema_is_the_sites_fault(schema: str, expected: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        validate({"a": 1}, schema)
    assert expected in caught.value.message()


def test_no_schema_takes_everything() -> None:
    validate({"a": 1}, "")


def test_a_simple_schema_costs_no_validator() -> None:
    code = f"""
import sys
from muster.endpoint.schema import validate
validate({{"worker_init": "x"}}, {json.dumps(DEFAULT)!r})
print("jsonschema" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
