"""The seam between a user endpoint and whatever runs its tasks.

Implementations: thread, process, parsl. All pass tests/contract/test_engine.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from muster.wire.bundle import ResultItem, TaskItem

Deliver = Callable[[list[ResultItem]], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is doing. `figures` are extra keys for the status report (official names)."""

    waiting: int  # handed over, not started
    running: int
    workers: int
    figures: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Promises exactly one result for every task it was given, whatever happens to the workers."""

    async def start(self, workdir: Path, deliver: Deliver) -> None:
        """Bring it up. `deliver` is called on this event loop with results as they come. StartFailed says why not."""

    def submit(self, tasks: Sequence[TaskItem], code: dict[bytes, str]) -> None:
        """Take these tasks; returns at once. `code` holds the packed code of every function they name."""

    def load(self) -> Load: ...

    def room(self) -> int:
        """How many more tasks it makes sense to hand over now: backlog bound, so a crash can lose little."""

    async def stop(self) -> None:
        """Stop the workers and whatever they started, within seconds; a second time does nothing.

        Tasks without a result get one (WorkerLost).
        """
