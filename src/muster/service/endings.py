"""Endings: how tasks end when no endpoint answers for them any more."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from uuid import UUID

from muster.errors import MusterError
from muster.model.task import Outcome, Task
from muster.service.notices import Ended, Notices
from muster.store.contract import ComputeStore

log = logging.getLogger(__name__)

_PAGE = 1000


class Endings:
    """Every task ends in a result or in an error that says why: here are the errors."""

    def __init__(self, store: ComputeStore, notices: Notices) -> None:
        self._store = store
        self._notices = notices

    async def end_all(self, endpoint: UUID, error: MusterError) -> list[UUID]:
        """End whatever this endpoint has not finished; the ids of those tasks."""
        ended: list[UUID] = []
        after: UUID | None = None
        while page := await self._store.unfinished(endpoint, after, _PAGE):
            await self.end(page, error)
            ended += [task.id for task in page]
            after = page[-1].id
        if ended:
            log.warning("%d task(s) of %s ended with %s: %s", len(ended), endpoint, error.code, error)
        return ended

    async def end(self, tasks: Sequence[Task], error: MusterError) -> None:
        """The first outcome counts: a result that came in meanwhile stays."""
        outcomes = {task.id: outcome_of(task, error) for task in tasks}
        finished = await self._store.finish(list(outcomes.values()))
        await self._notices.tell([Ended(one.group, outcomes[one.task]) for one in finished])


def outcome_of(task: Task, error: MusterError) -> Outcome:
    return Outcome(
        task=task.id,
        data=error.message(),
        error=(error.code, error.message()),
        details=json.dumps({"endpoint_id": str(task.endpoint)}),
        completed_at_s=time.time(),
    )
