from __future__ import annotations

from typing import Any

import pytest

from muster.endpoint.values import check
from muster.errors import Invalid


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"_GC": 1}, "'_GC'"),
        ({"parent_config": 1}, "reserved"),
        ({"a": "x" * 300_000}, "larger than"),
        ({"a": [0] * 100_000}, "larger than"),
        (deep(30), "deeper than"),
        ({"a": {"b": [1.0, float("nan")]}}, "user_endpoint_config.a.b[1] is not a finite number"),
        ({"a": float("inf")}, "finite"),
        ({"a": "\ud800"}, "half a character"),
        ({"a": {1: 2}}, "not text"),
        ({"a": b"x"}, "bytes"),
    ],
)
def test_values_that_no_configuration_can_hold_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(values)
    assert expected in caught.value.message()


def test_ordinary_values_pass() -> None:
    check({"ACCOUNT_ID": "OBIWAN123", "n": 2, "x": -0.5, "flag": True, "none": None, "deep": {"a": [{"b": "😀"}]}})
