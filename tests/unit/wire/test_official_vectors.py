"""Messages as the official 4.19 clients sent and took them: our codec reads each, and writes all of it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from muster.errors import UndecodableMessage
from muster.wire import rest
from muster.wire.command import StartCommand, decode_command, encode_json
from muster.wire.envelope import ResultMessage, StatusReport, TaskMessage, decode, encode
from muster.wire.packing import pack, unpack

VECTORS = Path(__file__).parents[2] / "vectors"
AMQP: list[dict[str, Any]] = json.loads((VECTORS / "official_amqp.json").read_text())
REST: list[dict[str, Any]] = json.loads((VECTORS / "official_rest.json").read_text())
KINDS = {"task": TaskMessage, "result": ResultMessage, "ep_status_report": StatusReport}
REQUESTS = {
    ("POST", "/v3/endpoints"): rest.Registration,
    ("PUT", "/v3/endpoints/{id}"): rest.Registration,
    ("POST", "/v3/functions"): rest.FunctionRegistration,
    ("POST", "/v3/endpoints/{id}/submit"): rest.Submission,
}
ANSWERS = {
    ("POST", "/v3/endpoints"): rest.Registered,
    ("PUT", "/v3/endpoints/{id}"): rest.Registered,
    ("POST", "/v3/endpoints/{id}/submit"): rest.Submitted,
    ("GET", "/v2/get_amqp_result_connection_url"): rest.ResultQueue,
}


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["what"]) for vector in vectors]


def keeps(again: Any, before: Any) -> bool:
    """Whether every fact of `before` is in `again`; what goes without saying may be left out."""
    if isinstance(before, dict) and isinstance(again, dict):
        return all(
            keeps(again[name], value) if name in again else value in ([], {}, None, False, True, "")
            for name, value in before.items()
        )
    return bool(again == before)


@pytest.mark.parametrize("vector", named([one for one in AMQP if one["enveloped"]]))
def test_an_enveloped_message_is_read_and_written_again(vector: dict[str, Any]) -> None:
    body = b"\x01" + json.dumps(vector["body"], ensure_ascii=False).encode()
    message = decode(body)
    assert type(message) is KINDS[vector["body"]["message_type"]]
    written = encode(message)
    assert written[:1] == b"\x01"
    assert b"\n" not in written
    assert keeps(json.loads(written[1:]), vector["body"])
    assert decode(written) == message


@pytest.mark.parametrize("vector", named([one for one in AMQP if not one["enveloped"]]))
def test_a_command_is_read_and_written_again(vector: dict[str, Any]) -> None:
    command = decode_command(json.dumps(vector["body"]).encode())
    assert isinstance(command, StartCommand)
    assert keeps(json.loads(encode_json(command)), vector["body"])


@pytest.mark.parametrize("vector", named([one for one in REST if (one["method"], one["path"]) in REQUESTS]))
def test_a_request_is_read_and_written_again(vector: dict[str, Any]) -> None:
    kind = REQUESTS[vector["method"], vector["path"]]
    document = msgspec.json.decode(json.dumps(vector["request"]), type=kind)
    written = msgspec.json.encode(document)
    assert keeps(json.loads(written), vector["request"])
    assert msgspec.json.decode(written, type=kind) == document


@pytest.mark.parametrize(
    "vector", named([one for one in REST if (one["method"], one["path"]) in ANSWERS and one["status"] == 200])
)
def test_an_answer_is_read_and_written_again(vector: dict[str, Any]) -> None:
    kind = ANSWERS[vector["method"], vector["path"]]
    document = msgspec.json.decode(json.dumps(vector["response"]), type=kind)
    assert keeps(json.loads(msgspec.json.encode(document)), vector["response"])


@pytest.mark.parametrize("vector", named([one for one in REST if one["status"] >= 400 and "code" in one["response"]]))
def test_a_refusal_is_read(vector: dict[str, Any]) -> None:
    document = msgspec.json.decode(json.dumps(vector["response"]), type=rest.ErrorDocument)
    assert (document.code, document.message) == (vector["response"]["code"], vector["response"]["message"])


def test_the_buffer_of_a_task_is_three_buffers() -> None:
    task = next(one["body"]["data"] for one in AMQP if one["what"] == "a task")
    buffers = unpack(task["task_buffer"])
    assert [buffer[:2] for buffer in buffers] == ["01", "00", "00"]
    assert pack(buffers) == task["task_buffer"]


def test_lengths_count_characters_and_not_bytes() -> None:
    assert pack(["é€😀"]) == "3\né€😀"
    assert unpack("3\né€😀1\nx") == ["é€😀", "x"]
    with pytest.raises(UndecodableMessage):
        unpack(f"{len('é€😀'.encode())}\né€😀")
