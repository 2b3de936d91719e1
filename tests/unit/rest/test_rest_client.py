"""What the client does with each answer, against a server that answers by script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from muster.errors import (
    ConfigInvalid,
    Conflict,
    FunctionNotAllowed,
    Invalid,
    Locked,
    MusterError,
    NotFound,
    NotPermitted,
    Outage,
    Refusal,
    StartFailed,
    TooLarge,
    Unauthenticated,
    UndecodableMessage,
)
from muster.rest import Rest
from muster.wire.rest import ResultQueue

DROP = 0
Answer = tuple[int, bytes, dict[str, str]]


class Script(ThreadingHTTPServer):
    """Answers requests with what `answers` holds, in order; notes what was asked over which connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, bytes, str | None]] = []
        self.connections: set[Any] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def will(self, status: int, body: object = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.answers.append((status, content, {name.replace("_", "-"): value for name, value in headers.items()}))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.connections.add(self.client_address)
        self.server.asked.append((self.command, self.path, body, self.headers.get("authorization")))
        status, content, headers = self.server.answers.pop(0)
        if status == DROP:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 -- the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Tokens:
    """A token source that counts renewals."""

    def __init__(self) -> None:
        self.renewals = 0

    def token(self, resource_server: str, force: bool = False) -> str:
        self.renewals += force
        return f"{resource_server}-{self.renewals}"


@pytest.fixture
def script() -> Iterator[Script]:
    with Script() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


@pytest.fixture
def rest(script: Script) -> Iterator[Rest]:
    client = Rest(script.url, Tokens(), timeout_s=5)
    yield client
    client.close()


def test_bodies_are_json_both_ways_and_typed_when_asked(script, rest) -> None:
    script.will(200, {"queue_prefix": "tg.", "connection_url": "amqp://x"})
    found = rest.call("POST", "/v2/x", {"a": 1}, answer=ResultQueue)
    assert found == ResultQueue(queue_prefix="tg.", connection_url="amqp://x")
    assert script.asked == [("POST", "/v2/x", b'{"a":1}', "Bearer funcx_service-0")]


def test_requests_share_one_connection(script, rest) -> None:
    for _ in range(5):
        script.will(200, {})
        rest.call("GET", "/")
    assert len(script.connections) == 1


def test_a_connection_that_the_server_closed_is_noticed_before_the_next_request(script, rest) -> None:
    for _ in range(3):
        script.will(200, {}, Connection="close")
        rest.call("POST", "/")
    assert len(script.asked) == len(script.connections) == 3


def test_each_thread_has_its_own_connection(script, rest) -> None:
    for _ in range(3):
        script.will(200, {})
        thread = threading.Thread(target=lambda: (rest.call("GET", "/"), rest.close()))
        thread.start()
        thread.join(30)
    assert len(script.connections) == 3


def test_the_identity_api_gets_the_identity_services_token(script, rest) -> None:
    script.will(200, {})
    rest.call("GET", "/v2/api/projects")
    assert script.asked[0][3] == "Bearer auth.globus.org-0"


def test_without_authentication_no_token_is_asked_for(script, rest) -> None:
    script.will(200, "1.0")
    assert rest.call("GET", "/v2/version", authenticated=False) == "1.0"
    assert script.asked[0][3] is None


def test_a_401_renews_the_token_once_and_asks_once_more(script, rest) -> None:
    script.will(401, {"code": "AUTHENTICATION_FAILED", "message": "expired"})
    script.will(200, {"ok": True})
    assert rest.call("POST", "/") == {"ok": True}
    assert [asked[3] for asked in script.asked] == ["Bearer funcx_service-0", "Bearer funcx_service-1"]


def test_a_second_401_is_the_answer(script, rest) -> None:
    for _ in range(2):
        script.will(401, {"code": "AUTHENTICATION_FAILED", "message": "expired"})
    with pytest.raises(Unauthenticated, match="expired"):
        rest.call("GET", "/")
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "", Invalid),
        (403, "FORBIDDEN", NotPermitted),
        (403, "FUNCTION_NOT_ALLOWED", FunctionNotAllowed),
        (403, "NOT_FOUND", NotPermitted),
        (404, "NOT_FOUND", NotFound),
        (409, "CONFLICT", Conflict),
        (413, "TASK_PAYLOAD_TOO_LARGE", TooLarge),
        (422, "SEMANTICALLY_INVALID", Invalid),
        (422, "START_FAILED", StartFailed),
        (422, "UNHEARD_OF", Refusal),
        (423, "ENDPOINT_LOCKED", Locked),
        (500, "error", MusterError),
        (503, "UNAVAILABLE", Outage),
        (418, "", Refusal),
    ],
)
def test_status_and_code_select_the_class_and_the_sentence_is_kept(script, rest, status, code, kind) -> None:
    script.will(status, {"code": code, "message": "100% {sure} about <this>"})
    with pytest.raises(MusterError) as refused:
        rest.call("POST", "/")
    assert type(refused.value) is kind
    assert refused.value.message() == "100% {sure} about <this>"


def test_a_demand_to_log_in_again_keeps_its_parameters(script, rest) -> None:
    parameters = {"session_required_policies": ["p"], "prompt": "login"}
    script.will(403, {"code": "AUTHENTICATION_POLICY_FAILED", "message": "x", "authorization_parameters": parameters})
    with pytest.raises(NotPermitted) as refused:
        rest.call("POST", "/")
    assert refused.value.facts["authorization_parameters"] == parameters
    assert refused.value.facts["code"] == "AUTHENTICATION_POLICY_FAILED"


def test_an_error_page_that_is_no_json_still_names_the_call(script, rest) -> None:
    script.will(500, b"<html>")
    with pytest.raises(MusterError, match="500 to POST /v3/x"):
        rest.call("POST", "/v3/x")


@pytest.mark.parametrize("trouble", [DROP, 503])
@pytest.mark.parametrize(("method", "options"), [("GET", {}), ("POST", {"repeatable": True})])
def test_what_may_be_repeated_is_repeated(script, rest, trouble, method, options) -> None:
    script.will(trouble, {}, Retry_After="0")
    script.will(200, {"ok": True})
    assert rest.call(method, "/", **options) == {"ok": True}
    assert len(script.asked) == 2


@pytest.mark.parametrize("trouble", [DROP, 503])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_may_have_been_done_is_never_done_twice(script, rest, trouble, method) -> None:
    script.will(trouble, {"code": "UNAVAILABLE", "message": "busy"})
    with pytest.raises(Outage):
        rest.call(method, "/")
    assert len(script.asked) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422, 423, 500])
def test_a_refusal_is_not_asked_again(script, rest, status) -> None:
    script.will(status, {"code": "x", "message": "no"})
    with pytest.raises(MusterError):
        rest.call("GET", "/")
    assert len(script.asked) == 1


def test_a_redirect_says_what_to_set(script, rest) -> None:
    script.will(301, b"", Location="https://muster.example.org/")
    with pytest.raises(Refusal, match=r"https://muster\.example\.org/.*MUSTER_SERVICE_URL"):
        rest.call("GET", "/")


def test_an_answer_of_another_shape_is_named(script, rest) -> None:
    script.will(200, {"queue_prefix": 1})
    with pytest.raises(UndecodableMessage, match="GET /q"):
        rest.call("GET", "/q", answer=ResultQueue)


def test_no_server_is_an_outage_that_names_the_address(script) -> None:
    script.server_close()
    with pytest.raises(Outage, match=f"{script.url}.*refused"):
        Rest(script.url, Tokens()).call("GET", "/")


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://x", "http://", "http://x:port"])
def test_an_unusable_address_is_told_by_its_setting(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="MUSTER_SERVICE_URL"):
        Rest(url)
