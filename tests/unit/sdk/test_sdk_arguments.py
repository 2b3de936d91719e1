from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from muster.errors import Invalid, TooLarge
from muster.sdk import SerializationError
from muster.sdk.arguments import json_text, pack_arguments, serializer_paths, uuid_of
from muster.sdk.batching import Call, Code, Lane
from muster.sdk.futures import ComputeFuture
from muster.sdk.ids import new_key
from muster.sdk.submitting import submission, too_large
from muster.serialize import JSONData, Serializer
from muster.wire.rest import LIMIT_SUBMIT_BYTES

LANE = Lane("5d1e1c5e-0d0c-4c3e-8a5b-000000000001", "5d1e1c5e-0d0c-4c3e-8a5b-000000000002")


@pytest.mark.parametrize(
    ("args", "kwargs", "name"),
    [
        ((1, (n for n in ())), {}, "Argument 2 (a generator)"),
        ((), {"b": (n for n in ())}, "Argument 'b' (a generator)"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(args, kwargs, name):
    with pytest.raises(SerializationError) as caught:
        pack_arguments(Serializer(), args, kwargs)
    assert caught.value.message().startswith(f"{name} cannot be serialized: ")


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"a": {"b": [1, {2}]}}, "config['a']['b'][1] is a set"),
        ({"a": float("nan")}, "config['a'] is nan"),
        ({"a": {3: "x"}}, "config['a'] has the key 3"),
        ({"a": b"raw"}, "config['a'] is a bytes"),
        ({"a": 2**70}, "config['a'] is 1180591620717411303424"),
    ],
)
def test_a_configuration_that_is_no_json_says_where(document, place):
    with pytest.raises(Invalid) as caught:
        json_text(document, "config")
    assert place in caught.value.message()


def test_a_configuration_that_contains_itself_is_refused():
    document: dict[str, object] = {}
    document["again"] = document
    with pytest.raises(Invalid, match="contains itself"):
        json_text(document, "config")


def test_the_same_configuration_is_the_same_text_whatever_the_order():
    assert json_text({"a": 1, "b": (2, 3)}, "config") == json_text({"b": [2, 3], "a": 1}, "config")
    assert json_text({}, "config") is json_text(None, "config") is None


def test_a_wrong_id_is_named():
    with pytest.raises(ValueError, match=r"endpoint_id must be a UUID .* not 'id_as_shared'"):
        uuid_of("id_as_shared", "endpoint_id")
    ours = uuid4()
    assert uuid_of(str(ours), "endpoint_id") == uuid_of(ours, "endpoint_id") == ours


def test_our_strategies_go_by_their_official_paths():
    official = "globus_compute_sdk.serialize.concretes.JSONData"
    assert serializer_paths([JSONData, JSONData(), "site.Strategy"]) == (official, official, "site.Strategy")


def test_a_payload_over_the_limit_is_found_before_it_is_sent():
    fits = Call(ComputeFuture(new_key()), Code(id="f"), "x" * (LIMIT_SUBMIT_BYTES - 100_000))
    exceeds = Call(ComputeFuture(new_key()), Code(id="f"), "x" * LIMIT_SUBMIT_BYTES)
    assert too_large(LANE, fits) is None
    error = too_large(LANE, exceeds)
    assert isinstance(error, TooLarge)
    assert str(LIMIT_SUBMIT_BYTES + 2) in error.message()


def test_the_largest_payload_that_passes_makes_a_post_within_the_limit():
    lines = "y" * 76 + "\n"  # JSON writes the newline as two characters
    payload = lines * (LIMIT_SUBMIT_BYTES // 78 - 300)
    one = Call(ComputeFuture(new_key()), Code(id="5d1e1c5e-0d0c-4c3e-8a5b-000000000003"), payload)
    assert too_large(LANE, one) is None
    assert len(msgspec.json.encode(submission(LANE, [one]))) <= LIMIT_SUBMIT_BYTES


def test_a_submission_names_every_task_in_the_order_of_its_function():
    calls = [Call(ComputeFuture(new_key()), Code(id=f"f{n % 2}"), f"p{n}") for n in range(4)]
    document = submission(Lane("g", "e", config='{"a":1}', serializers=("s",)), calls)
    assert document.tasks == {"f0": ["p0", "p2"], "f1": ["p1", "p3"]}
    ids = [call.future.task_id for call in calls]
    assert document.task_ids == {"f0": [ids[0], ids[2]], "f1": [ids[1], ids[3]]}
    assert (document.user_endpoint_config, document.result_serializers) == ({"a": 1}, ["s"])
    assert (document.bundles, document.create_queue) == (1, True)
