"""The REST side of the SDK: functions, tasks and endpoints, one method a request."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from muster.errors import CannotDeserialize, NotFound
from muster.sdk.access import open_rest, with_login
from muster.sdk.arguments import json_text, serializer_paths
from muster.sdk.batch import Batch
from muster.sdk.endpoints import EndpointMethods
from muster.sdk.errors import TaskPending, VersionMismatch
from muster.sdk.functions import Functions, function_meta
from muster.sdk.outcomes import error_of, item_of_document
from muster.sdk.polling import look_up
from muster.sdk.runtime import PROTOCOL_VERSION, user_runtime
from muster.wire.rest import COMPUTE_SERVER, FunctionRegistration, Submission, Submitted, TaskDocument

if TYPE_CHECKING:
    from muster.sdk.results import ResultsReader
    from muster.serialize import Serializer, Strategy


class Client(EndpointMethods):
    """One account at one service. Safe to use from many threads; a slow call does not hold up the others."""

    def __init__(
        self,
        environment: str | None = None,
        local_compute_services: bool = False,
        do_version_check: bool = True,
        *,
        code_serialization_strategy: type[Strategy] | Strategy | None = None,
        data_serialization_strategy: type[Strategy] | Strategy | None = None,
        app: Any = None,
        authorizer: Any = None,
        service_url: str | None = None,
    ) -> None:
        from muster.serialize import DillCode, DillDataBase64, Serializer

        super().__init__(open_rest(service_url, environment, local_compute_services, app, authorizer))
        self.serializer: Serializer = Serializer(
            _strategy(code_serialization_strategy, DillCode), _strategy(data_serialization_strategy, DillDataBase64)
        )
        self.functions = Functions(self._register_packed)
        self._readers: dict[int | None, ResultsReader] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, self.rest.close)
        if do_version_check:
            self.version_check()

    def version_check(self, endpoint_version: str | None = None) -> None:
        """VersionMismatch when the service wants a newer SDK, or a newer endpoint than the one named."""
        found: Any = self.rest.call("GET", "/v2/version?service=all", authenticated=False)
        wanted = found if isinstance(found, dict) else {}
        for ours, key in ((PROTOCOL_VERSION, "min_sdk_version"), (endpoint_version, "min_ep_version")):
            least = wanted.get(key)
            if ours is not None and isinstance(least, str) and _numbers(ours) < _numbers(least):
                raise VersionMismatch(why=f"the service asks for version {least} or newer, and this is {ours}: upgrade")

    def log_in(self) -> None:
        """Have a token, or know why not, before threads need one that could ask nobody."""
        with_login(self.rest, lambda: self.rest.tokens.token(COMPUTE_SERVER))

    def close(self) -> None:
        """Close this thread's connection; the next call opens another."""
        self.rest.close()

    def logout(self) -> bool:
        """Revoke and forget the tokens of this service; False when there were none."""
        from muster.rest.login import Login

        return Login(self.rest.url).logout()

    def results_reader(self, amqp_port: int | None = None) -> ResultsReader:
        """The one thread that reads results for this Client."""
        from muster.sdk.results import ResultsReader

        with self._lock:
            if amqp_port not in self._readers:
                self._readers[amqp_port] = ResultsReader(self.rest, self.serializer, amqp_port)
            return self._readers[amqp_port]

    def register_function(
        self,
        function: Callable[..., Any],
        function_name: str | None = None,
        container_uuid: str | None = None,  # noqa: ARG002 - an official name that has lost its meaning
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        public: bool = False,
        group: str | None = None,
        searchable: bool | None = None,  # noqa: ARG002 - likewise
        ha_endpoint_id: UUID | str | None = None,
    ) -> str:
        """Store a function at the service; the answer is its id. The docstring is its description by default."""
        return self._register(
            FunctionRegistration(
                function_name=function_name or _name_of(function),
                function_code=self.serializer.pack_function(function),
                description=description or getattr(function, "__doc__", None),
                public=public,
                group=group,
                ha_endpoint_id=None if ha_endpoint_id is None else str(ha_endpoint_id),
                meta=function_meta() | dict(metadata or {}),
            )
        )

    def register_source_code(
        self,
        source: str,
        function_name: str,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        public: bool = False,
        group: str | None = None,
        ha_endpoint_id: UUID | str | None = None,
    ) -> str:
        """Store a function as the text that defines it; runs on any Python that understands the text."""
        return self._register(
            FunctionRegistration(
                function_name=function_name,
                function_code=source,
                serialized=False,
                description=description,
                public=public,
                group=group,
                ha_endpoint_id=None if ha_endpoint_id is None else str(ha_endpoint_id),
                meta=function_meta() | dict(metadata or {}),
            )
        )

    def get_function(self, function_id: UUID | str) -> dict[str, Any]:
        """What was registered, its code included."""
        return dict(self.call("GET", f"/v2/functions/{function_id}"))

    def delete_function(self, function_id: UUID | str) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v2/functions/{function_id}") or {})

    def _register_packed(self, function: Any, packed: str) -> str:
        return self._register(
            FunctionRegistration(
                function_name=_name_of(function),
                function_code=packed,
                description=getattr(function, "__doc__", None),
                meta=function_meta(),
            )
        )

    def _register(self, registration: FunctionRegistration) -> str:
        # Registering twice makes a second, equal function that nobody refers to: repeating is safe.
        answer = self.call("POST", "/v3/functions", registration, repeatable=True)
        return str(answer["function_uuid"])

    def run(self, *args: Any, endpoint_id: UUID | str, function_id: UUID | str, **kwargs: Any) -> str:
        """Submit one call of a registered function; the answer is its task id, to be asked about with get_result."""
        batch = self.create_batch()
        task_id = batch.add(function_id, args, kwargs)
        self.batch_run(endpoint_id, batch)
        return task_id

    def create_batch(
        self,
        task_group_id: UUID | str | None = None,
        resource_specification: Mapping[str, Any] | None = None,
        user_endpoint_config: Mapping[str, Any] | None = None,
        create_websocket_queue: bool = False,
        serializer: Serializer | None = None,
        result_serializers: Sequence[Any] | None = None,
    ) -> Batch:
        """An empty batch; fill it with `add`, submit it with `batch_run`."""
        return Batch(
            serializer or self.serializer,
            task_group_id,
            resource_specification,
            user_endpoint_config,
            create_websocket_queue,
            serializer_paths(result_serializers),
        )

    def batch_run(self, endpoint_id: UUID | str, batch: Batch) -> dict[str, Any]:
        """Submit a batch; the answer has `request_id`, `task_group_id`, `endpoint_id` and `tasks` by function."""
        if not batch:
            raise ValueError("the batch is empty")
        json_text(batch.resource_specification, "resource_specification")
        json_text(batch.user_endpoint_config, "user_endpoint_config")
        document = Submission(
            tasks=batch.tasks,
            task_ids=batch.task_ids,
            create_queue=batch.create_queue,
            task_group_id=batch.task_group_id,
            resource_specification=dict(batch.resource_specification or {}) or None,
            user_endpoint_config=dict(batch.user_endpoint_config or {}) or None,
            result_serializers=list(batch.result_serializers or ()) or None,
            user_runtime=user_runtime(),
            bundles=1,
        )
        path = f"/v3/endpoints/{endpoint_id}/submit"
        answer: Submitted = self.call("POST", path, document, Submitted, repeatable=True)
        return {
            "request_id": answer.request_id,
            "task_group_id": answer.task_group_id,
            "endpoint_id": answer.endpoint_id,
            "tasks": answer.tasks,
        }

    def get_task(self, task_id: UUID | str) -> dict[str, Any]:
        """`pending`, `status`, and when it has ended `result` or `exception` with `completion_t` and `details`."""
        return self._told(self.call("GET", f"/v2/tasks/{task_id}", None, TaskDocument))

    def get_result(self, task_id: UUID | str) -> Any:
        """The value; TaskPending while there is none, TaskExecutionFailed when the task failed."""
        task = self.get_task(task_id)
        if task["pending"]:
            raise TaskPending(task["status"])
        if "exception" in task:
            raise task["exception"]
        return task["result"]

    def get_batch_result(self, task_id_list: Iterable[UUID | str]) -> dict[str, dict[str, Any]]:
        """`get_task` of many. Tasks that the service does not know are absent."""
        ids = [str(task_id) for task_id in task_id_list]
        if not ids:
            return {}
        found = with_login(self.rest, lambda: look_up(self.rest, ids))
        return {task_id: self._told(document) for task_id, document in found.items()}

    def get_task_group(self, task_group_id: UUID | str) -> list[str]:
        """The ids of the group's tasks, in the order of their submission."""
        answer = self.call("GET", f"/v2/taskgroup/{task_group_id}")
        if not isinstance(answer, dict) or answer.get("taskgroup_id") != str(task_group_id):
            raise NotFound(thing="task group", name=task_group_id)
        return [str(task["id"]) for task in answer.get("tasks", ())]

    def get_result_amqp_url(self) -> dict[str, str]:
        """`queue_prefix` and `connection_url`, with fresh credentials for this account's results."""
        return dict(self.call("GET", "/v2/get_amqp_result_connection_url"))

    def _told(self, document: TaskDocument) -> dict[str, Any]:
        item = item_of_document(document)
        told: dict[str, Any] = {"task_id": document.task_id, "pending": item is None, "status": document.status}
        if item is None:
            return told
        told |= {"completion_t": document.completion_t, "details": document.details}
        error: Exception | None = error_of(item, document.completion_t)
        if error is None:
            try:
                told["result"] = self.serializer.deserialize(item.data)
            except CannotDeserialize as why:
                error = why
        if error is not None:
            told["exception"] = error
        return told


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _strategy(given: Any, default: type[Strategy]) -> type[Strategy]:
    if given is None:
        return default
    return given if isinstance(given, type) else type(given)


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, for comparison."""
    release = version.partition("+")[0].partition("-")[0]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in release.split("."))
