"""Many calls for one `Client.batch_run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from muster.sdk.arguments import pack_arguments
from muster.sdk.ids import new_key, text_of

if TYPE_CHECKING:
    from muster.serialize import Serializer


class Batch:
    """Collects calls; `Client.create_batch` makes it."""

    def __init__(
        self,
        serializer: Serializer,
        task_group_id: UUID | str | None = None,
        resource_specification: Mapping[str, Any] | None = None,
        user_endpoint_config: Mapping[str, Any] | None = None,
        create_queue: bool = False,
        result_serializers: Sequence[str] | None = None,
    ) -> None:
        self.serializer = serializer
        self.task_group_id = None if task_group_id is None else str(task_group_id)
        self.resource_specification = resource_specification
        self.user_endpoint_config = user_endpoint_config
        self.create_queue = create_queue
        self.result_serializers = result_serializers
        self.tasks: dict[str, list[str]] = {}
        self.task_ids: dict[str, list[str]] = {}

    def add(
        self,
        function_id: UUID | str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """One more call of a registered function; the answer is its task id."""
        payload = pack_arguments(self.serializer, args or (), kwargs or {})
        task_id = text_of(new_key())
        self.tasks.setdefault(str(function_id), []).append(payload)
        self.task_ids.setdefault(str(function_id), []).append(task_id)
        return task_id

    def __len__(self) -> int:
        return sum(map(len, self.tasks.values()))
