from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from muster.endpoint import journal as module
from muster.endpoint.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_task_that_started_is_lost_to_the_next_incarnation_only(path: Path) -> None:
    task = uuid4().bytes
    journal = Journal(path)
    journal.start([task])
    assert not journal.lost(task)
    assert Journal(path).lost(task)


def test_a_task_that_ended_is_not_lost(path: Path) -> None:
    task = uuid4().bytes
    journal = Journal(path)
    journal.start([task])
    journal.end([task])
    again = Journal(path)
    assert again.ended(task)
    assert not again.lost(task)


def test_it_remembers_over_many_incarnations(path: Path) -> None:
    task = uuid4().bytes
    Journal(path).start([task])
    for _ in range(3):
        Journal(path).close()
    assert Journal(path).lost(task)


@pytest.mark.parametrize("cut", range(1, 21))
def test_a_torn_tail_costs_only_the_last_record(path: Path, cut: int) -> None:
    first, second, third = (uuid4().bytes for _ in range(3))
    Journal(path).start([first, second])
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert again.lost(first)
    assert not again.lost(second)
    again.start([third])
    assert Journal(path).lost(third)


def test_it_does_not_grow_without_end(path: Path) -> None:
    journal = Journal(path)
    running = uuid4().bytes
    journal.start([running])
    for _ in range(14):
        tasks = [uuid4().bytes for _ in range(10_000)]
        journal.start(tasks)
        journal.end(tasks)
    assert path.stat().st_size < 21 * 300_000
    again = Journal(path)
    assert again.lost(running)
    assert again.ended(tasks[-1])
    assert path.stat().st_size <= 21 * (module._REMEMBERED + 1)
