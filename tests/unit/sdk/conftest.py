"""A service in one process that runs every task at once: real HTTP, the real broker, and faults on demand."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID, uuid4

import pytest

from muster.broker.local import LocalTransport
from muster.broker.server import Broker
from muster.model.account import AccountKind, BrokerAccount
from muster.sdk import Client
from muster.sdk.ids import key_of
from muster.serialize import Serializer
from muster.transport import Outgoing
from muster.transport.contract import QueueSpec
from muster.wire import bundle
from muster.wire.bundle import ResultItem
from muster.wire.packing import pack
from muster.wire.topology import group_prefix, group_queue

HARPER = UUID("5d1e1c5e-0d0c-4c3e-8a5b-0000000000aa")


class Stage:
    """What a Client sees of a service, and knobs for what may go wrong."""

    def __init__(self) -> None:
        self.serializer = Serializer()
        self.functions: dict[str, str] = {}
        self.documents: dict[str, dict[str, object]] = {}
        self.groups: dict[str, list[str]] = {}
        self.submissions: list[dict[str, object]] = []
        self.runs: Counter[str] = Counter()
        self.answers: list[tuple[int, str]] = []  # to the next submits: (status, code); 0: run it, answer nothing
        self.refused_functions: set[str] = set()
        self.silent = False  # results reach the task documents and no queue
        self.held: threading.Event | None = None  # submits wait for it
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.broker: Broker
        self.do(self._start())
        handler = type("Handler", (_Handler,), {"stage": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.serving = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.serving.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def _start(self) -> None:
        async def authorise(username: str, password: str) -> BrokerAccount | None:
            return BrokerAccount(username, b"", AccountKind.READER, HARPER) if password == "pw" else None

        self.broker = Broker(authorise)
        self.amqp = await self.broker.start("127.0.0.1", 0)
        self.transport = LocalTransport(self.broker)

    async def _stop(self) -> None:
        await self.transport.close()
        await self.broker.stop()

    def close(self) -> None:
        self.server.shutdown()
        self.serving.join()
        self.server.server_close()
        self.do(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def declare(self, group: str) -> None:
        self.do(self.transport.declare(QueueSpec(group_queue(HARPER, UUID(group)))))

    def forget_queues(self) -> None:
        for group in self.groups:
            self.do(self.transport.delete(group_queue(HARPER, UUID(group))))

    def publish(self, group: str, items: list[ResultItem]) -> None:
        body = bundle.encode_results(items)
        message = Outgoing("", group_queue(HARPER, UUID(group)), body, content_type=bundle.RESULTS)
        self.do(self.transport.publish([message]))

    def submit(self, document: dict) -> dict[str, object]:
        group = document.get("task_group_id") or str(uuid4())
        self.submissions.append(document)
        if group not in self.groups:
            self.groups[group] = []
            self.declare(group)
        items = []
        for function, payloads in document["tasks"].items():
            for task_id, payload in zip(document["task_ids"][function], payloads, strict=True):
                if task_id not in self.documents:  # the same id again is the same task
                    self.groups[group].append(task_id)
                    items.append(self.run(task_id, function, payload))
        if items and not self.silent:
            self.publish(group, items)
        return {
            "request_id": str(uuid4()),
            "task_group_id": group,
            "endpoint_id": str(uuid4()),
            "tasks": document["task_ids"],
        }

    def run(self, task_id: str, function: str, payload: str) -> ResultItem:
        self.runs[task_id] += 1
        try:
            called = self.serializer.unpack_function(self.functions[function])
            args, kwargs = self.serializer.unpack_arguments(payload)
            data = self.serializer.serialize(called(*args, **kwargs))
            self.documents[task_id] = {"status": "success", "result": data, "completion_t": "1.0"}
            return ResultItem(task=key_of(task_id), data=data)
        except Exception:  # noqa: BLE001 - whatever the task raises is its outcome
            trace = traceback.format_exc()
            self.documents[task_id] = {"status": "failed", "exception": trace, "completion_t": "1.0"}
            return ResultItem(key_of(task_id), trace, "RemoteExecutionError", "it raised")


class _Handler(BaseHTTPRequestHandler):
    stage: Stage
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        stage, path = self.stage, self.path.partition("?")[0]
        if path == "/v2/version":
            return self.answer(200, {"min_sdk_version": "2.0.0", "min_ep_version": "2.0.0"})
        if path == "/v2/get_amqp_result_connection_url":
            host, port = stage.amqp
            url = f"amqp://{uuid4().hex}:pw@{host}:{port}/%2F"
            return self.answer(200, {"queue_prefix": group_prefix(HARPER), "connection_url": url})
        name = path.rpartition("/")[2]
        if path.startswith("/v2/taskgroup/") and name in stage.groups:
            stage.declare(name)
            return self.answer(200, {"taskgroup_id": name, "tasks": [{"id": task} for task in stage.groups[name]]})
        if path.startswith("/v2/tasks/"):
            return self.answer(200, {"task_id": name, **stage.documents.get(name, {"status": "received"})})
        return self.answer(404, {"code": "NOT_FOUND", "message": f"No such thing: {path}"})

    def do_POST(self) -> None:
        stage = self.stage
        document = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v3/functions":
            name = document["function_name"]
            if name in stage.refused_functions:
                return self.answer(403, {"code": "FORBIDDEN", "message": f"You may not register {name}"})
            function_id = str(uuid4())
            code = document["function_code"]
            inner = f"st\n{name}:{code}"
            stage.functions[function_id] = code if document.get("serialized", True) else pack([inner])
            return self.answer(200, {"function_uuid": function_id})
        if self.path == "/v2/batch_status":
            found = {t: {"task_id": t, **stage.documents[t]} for t in document["task_ids"] if t in stage.documents}
            return self.answer(200, {"response": "batch", "results": found})
        if stage.held is not None:
            stage.held.wait(10)
        status, code = stage.answers.pop(0) if stage.answers else (200, "")
        if status == 0:
            stage.submit(document)
            self.close_connection = True
            return None
        if status == 200:
            return self.answer(200, stage.submit(document))
        return self.answer(status, {"code": code, "message": f"refused with {code}"})

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Pass:
    """A token that is always good."""

    def get_authorization_header(self) -> str:
        return "Bearer good"

    def handle_missing_authorization(self) -> bool:
        return True


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    made = Client(service_url=stage.url, authorizer=Pass())
    yield made
    made.close()


@pytest.fixture
def endpoint_id() -> str:
    return str(uuid4())
