"""What callers send is bounded, and a refusal names the field."""

from __future__ import annotations

import msgspec
import pytest

from muster.errors import Invalid
from muster.service.reading import bounded_json, depth, document, plain, uuid_of
from muster.wire.rest import Submission

DECODER = msgspec.json.Decoder(Submission)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"tasks": []}', "tasks"),
        (b'{"tasks": {"a": ["x"]}, "create_queue": "yes"}', "create_queue"),
        (b"{}", "tasks"),
        (b"{", "truncated"),
        (b'\xff\xfe{"tasks"', "malformed"),
        (b'{"tasks": {}, "user_endpoint_config": ' + b"[" * 100_000, "user_endpoint_config"),
        (b'{"tasks": {}, "user_endpoint_config": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", ""),
    ],
)
def test_a_malformed_body_is_invalid_and_says_where(body: bytes, named: str) -> None:
    with pytest.raises(Invalid) as refused:
        document(body, DECODER)
    assert named in refused.value.message()


def test_the_field_comes_first() -> None:
    assert plain("Expected `str`, got `int` - at `$.tasks[0]`") == "tasks[0]: Expected `str`, got `int`"


def test_no_uuid_is_invalid_and_named() -> None:
    with pytest.raises(Invalid, match="task_group_id"):
        uuid_of("nonsense" * 100, "task_group_id")


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_depth_is_counted_and_bounded() -> None:
    assert depth(nested(5), 100) == 5
    assert depth(nested(500), 33) == 33
    assert depth("text", 33) == 0


def test_values_that_are_too_deep_or_too_large_are_invalid() -> None:
    assert bounded_json({"a": 1}, "values", 100, 3) == '{"a":1}'
    with pytest.raises(Invalid, match="deeper"):
        bounded_json({"a": nested(9)}, "values", 1000, 3)
    with pytest.raises(Invalid, match="limit of 100"):
        bounded_json({"a": "x" * 100}, "values", 100, 3)
