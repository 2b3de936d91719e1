"""A bar on standard error while futures end; nothing at all where nobody would see it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

F = TypeVar("F", bound="concurrent.futures.Future[Any]")


def progress(futures: Iterable[F], description: str = "tasks", timeout: float | None = None) -> Iterator[F]:
    """The futures as they are done, like `concurrent.futures.as_completed`, under a bar."""
    waiting = list(futures)
    with bar(waiting, description):
        for future in concurrent.futures.as_completed(waiting, timeout):
            yield cast("F", future)


@contextmanager
def bar(futures: Sequence[concurrent.futures.Future[Any]], description: str = "tasks") -> Iterator[None]:
    """Counts them as they are done, in a terminal or a notebook."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=console, disable=not (console.is_terminal or console.is_jupyter))
    with shown:
        line = shown.add_task(description, total=len(futures))
        for future in futures:
            future.add_done_callback(lambda _: shown.advance(line))
        yield
