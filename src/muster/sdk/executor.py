"""The Executor: `concurrent.futures`, with the work done on somebody else's computer."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from muster.sdk.arguments import json_text, pack_arguments, serializer_paths, uuid_of
from muster.sdk.batching import DEFAULT_TASKS, Call, Code, Lane
from muster.sdk.futures import ComputeFuture
from muster.sdk.ids import key_of, new_key

if TYPE_CHECKING:
    from muster.sdk.client import Client
    from muster.sdk.submitting import Submitter
    from muster.serialize import Serializer

FLUSH_S = 10.0  # the end of the interpreter waits this long for what was submitted and not yet sent
JOIN_S = 5.0
SHUT_DOWN = "this Executor is shut down: it takes no more tasks"


class Executor(concurrent.futures.Executor):
    """Submit functions to an endpoint, get futures. Nothing connects before the first submit.

    The attributes may be changed between submits; each task goes with those of the moment it was submitted.
    """

    def __init__(
        self,
        endpoint_id: UUID | str | None = None,
        client: Client | None = None,
        task_group_id: UUID | str | None = None,
        resource_specification: dict[str, Any] | None = None,
        user_endpoint_config: dict[str, Any] | None = None,
        label: str = "",
        batch_size: int = DEFAULT_TASKS,
        amqp_port: int | None = None,
        api_burst_limit: int = 4,
        api_burst_window_s: int = 16,
        serializer: Serializer | None = None,
        result_serializers: Sequence[Any] | None = None,
        *,
        progress: bool = False,
    ) -> None:
        _within("batch_size", batch_size, 1, 1_000_000)
        # Nothing is throttled here: these are what scripts for the official service pass.
        _within("api_burst_limit", api_burst_limit, 1, 8)
        _within("api_burst_window_s", api_burst_window_s, 1, 32)
        self.endpoint_id = endpoint_id
        self.task_group_id = task_group_id
        self.resource_specification = resource_specification
        self.user_endpoint_config = user_endpoint_config
        self.amqp_port = amqp_port
        self.serializer = serializer
        self.result_serializers = result_serializers
        self.label = label
        self.batch_size = batch_size
        self.api_burst_limit = api_burst_limit
        self.api_burst_window_s = api_burst_window_s
        self.progress = progress
        self.task_count_submitted = 0
        self._client = client
        self._lock = threading.Lock()
        self._submitter: Submitter | None = None
        self._stopped = False
        self._at_end: weakref.finalize[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"Executor<{self.label or 'unnamed'}; endpoint {self._endpoint_id}; group {self.task_group_id}>"

    @property
    def client(self) -> Client:
        """The one given, or the one that all Executors of this environment share."""
        if self._client is None:
            from muster.sdk.sharing import shared_client

            self._client = shared_client()
        return self._client

    @property
    def endpoint_id(self) -> UUID | None:
        """Where tasks go."""
        return self._endpoint_id

    @endpoint_id.setter
    def endpoint_id(self, value: UUID | str | None) -> None:
        self._endpoint_id = uuid_of(value, "endpoint_id")

    @property
    def task_group_id(self) -> UUID:
        """Under this id `reload_tasks` finds the tasks again, from any process of yours."""
        return self._task_group_id

    @task_group_id.setter
    def task_group_id(self, value: UUID | str | None) -> None:
        self._task_group_id = uuid_of(value, "task_group_id") or uuid4()

    @property
    def resource_specification(self) -> dict[str, Any] | None:
        """What each task asks of the engine, for engines that partition (MPI)."""
        return self._resource_specification

    @resource_specification.setter
    def resource_specification(self, value: dict[str, Any] | None) -> None:
        json_text(value, "resource_specification")
        self._resource_specification = value

    @property
    def user_endpoint_config(self) -> dict[str, Any] | None:
        """The values for the endpoint's configuration template; another content is another user endpoint."""
        return self._user_endpoint_config

    @user_endpoint_config.setter
    def user_endpoint_config(self, value: dict[str, Any] | None) -> None:
        json_text(value, "user_endpoint_config")
        self._user_endpoint_config = value

    @property
    def amqp_port(self) -> int | None:
        """The broker's port, when it is reached by another one than the service says."""
        return self._amqp_port

    @amqp_port.setter
    def amqp_port(self, value: int | None) -> None:
        if value is not None:
            _within("amqp_port", value, 1, 65535)
        self._amqp_port = value

    @property
    def result_serializers(self) -> tuple[str, ...]:
        """Import paths of the strategies to try on results, in this order; strategies themselves are taken too."""
        return self._result_serializers

    @result_serializers.setter
    def result_serializers(self, value: Sequence[Any] | None) -> None:
        self._result_serializers = serializer_paths(value)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ComputeFuture:
        """Run `fn(*args, **kwargs)` at the endpoint. Does not wait for the network, except for the very first call."""
        self._may_submit()
        serializer = self.serializer or self.client.serializer
        code = self.client.functions.code_of(fn, serializer)
        return self._put(code, pack_arguments(serializer, args, kwargs))

    def submit_to_registered_function(
        self,
        function_id: UUID | str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> ComputeFuture:
        """Run a function that somebody registered."""
        self._may_submit()
        function = str(uuid_of(function_id, "function_id"))
        serializer = self.serializer or self.client.serializer
        return self._put(Code(id=function), pack_arguments(serializer, args or (), kwargs or {}))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """`fn` over the iterables, all submitted at once, results in order; `timeout` counts from this call.

        An exception of a task is raised when its result is due. `chunksize` is taken and changes nothing: tasks
        travel in bundles anyway, and each keeps an outcome of its own.
        """
        _within("chunksize", chunksize, 1, 2**63)
        end_s = None if timeout is None else time.monotonic() + timeout
        futures = [self.submit(fn, *args) for args in zip(*iterables, strict=False)]
        return _results(futures, end_s, self.progress)

    def register_function(
        self, fn: Callable[..., Any], function_id: UUID | str | None = None, **func_register_kwargs: Any
    ) -> str:
        """Register now, with what `Client.register_function` takes; later submits of `fn` use this id."""
        if function_id is None:
            registered = self.client.register_function(fn, **func_register_kwargs)
        else:
            registered = str(uuid_of(function_id, "function_id"))
        self.client.functions.remember(fn, registered)
        return registered

    def register_source_code(self, source: str, function_name: str, **func_register_kwargs: Any) -> str:
        """Register the text of a function; run it with `submit_to_registered_function`."""
        return self.client.register_source_code(source, function_name, **func_register_kwargs)

    def reload_tasks(self) -> Iterable[ComputeFuture]:
        """Futures for all tasks of the task group, whoever submitted them; those that have ended are done."""
        from muster.sdk.outcomes import item_of_document, resolve
        from muster.sdk.polling import look_up

        if self._stopped:
            raise RuntimeError(SHUT_DOWN)
        submitter = self._started()
        group = str(self.task_group_id)
        mine = {future.key: future for future in submitter.open_futures() if isinstance(future, ComputeFuture)}
        keys = [key_of(task_id) for task_id in self.client.get_task_group(group)]
        futures = {key: mine.get(key) or ComputeFuture(key, self._ask) for key in keys}
        fresh = [future for key, future in futures.items() if key not in mine]
        submitter.await_results(group, fresh)
        found = look_up(self.client.rest, [future.task_id for future in fresh])
        for future in fresh:
            document = found.get(future.task_id)
            item = item_of_document(document) if document is not None else None
            if item is not None:
                submitter.forget(future)
                resolve(future, item, self.client.serializer)
        return list(futures.values())

    def get_worker_hardware_details(self) -> str:
        """What a worker of the endpoint says about its machine; waits for it."""
        from muster.sdk.hardware import NAME, source

        function_id = self.register_source_code(source(), NAME)
        return str(self.submit_to_registered_function(function_id).result())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; with `wait`, until every future is done. `cancel_futures` ends them all now: what was not
        sent is never run, what was sent may still run, and `reload_tasks` finds it.
        """
        with self._lock:
            self._stopped = True
            submitter = self._submitter
        if submitter is None:
            return
        submitter.close(cancel=cancel_futures)
        if wait:
            concurrent.futures.wait(submitter.open_futures())
            submitter.join(JOIN_S)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        # Ctrl-C must get people out, however long their tasks take.
        leaving = exc_type is not None and not issubclass(exc_type, Exception)
        self.shutdown(wait=not leaving, cancel_futures=leaving)

    def _may_submit(self) -> None:
        if self._endpoint_id is None:
            raise ValueError("no endpoint_id is set: Executor(endpoint_id=...), or executor.endpoint_id = ...")
        if self._stopped:
            raise RuntimeError(SHUT_DOWN)

    def _put(self, code: Code, payload: str) -> ComputeFuture:
        future = ComputeFuture(new_key(), self._ask)
        submitter = self._submitter or self._started()
        submitter.batch_size = self.batch_size
        if not submitter.put(self._lane(), Call(future, code, payload)):
            raise RuntimeError(SHUT_DOWN)
        with self._lock:
            self.task_count_submitted += 1
        return future

    def _lane(self) -> Lane:
        return Lane(
            group=str(self._task_group_id),
            endpoint=str(self._endpoint_id),
            # Once more: a dictionary may have been changed since it was set.
            resources=json_text(self._resource_specification, "resource_specification"),
            config=json_text(self._user_endpoint_config, "user_endpoint_config"),
            serializers=self._result_serializers,
        )

    def _started(self) -> Submitter:
        """Log in now, in the caller's thread, where somebody can answer a question; then leave the rest to threads."""
        client = self.client
        with self._lock:
            if self._submitter is None:
                from muster.sdk.submitting import Submitter

                client.log_in()
                reader = client.results_reader(self._amqp_port)
                name = f"muster submit {self.label}".strip()
                self._submitter = Submitter(client.rest, client.functions, reader, name)
                self._at_end = weakref.finalize(self, self._submitter.flush, FLUSH_S)
            return self._submitter

    def _ask(self, task_id: str) -> str:
        return str(self.client.get_task(task_id)["status"])


def _results(futures: list[ComputeFuture], end_s: float | None, shown: bool) -> Iterator[Any]:
    with ExitStack() as stack:
        if shown:
            from muster.sdk.bar import bar

            stack.enter_context(bar(futures))
        left = deque(futures)
        futures.clear()  # a result that was read need not be kept
        try:
            while left:
                yield left.popleft().result(None if end_s is None else max(0.0, end_s - time.monotonic()))
        finally:
            for future in left:
                future.cancel()


def _within(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
