from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from muster.endpoint import spool as module
from muster.endpoint.spool import Spool
from muster.wire.bundle import ResultItem, encode_results


def bundle(*names: str) -> bytes:
    return encode_results([ResultItem(name.encode().ljust(16), name) for name in names])


def left(directory: Path) -> list[str]:
    return [item.data for items in Spool(directory).inherited() for item in items]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "results"


@contextmanager
def small_files() -> Iterator[None]:
    """As short as can be: the limit holds for this whole process, the report of the tests included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_not_confirmed_is_there_for_the_next(directory: Path) -> None:
    spool = Spool(directory)
    spool.append(bundle("a", "b"))
    spool.append(bundle("c"))
    assert left(directory) == ["a", "b", "c"]


def test_what_is_confirmed_leaves_no_file(directory: Path) -> None:
    spool = Spool(directory)
    tickets = [spool.append(bundle("a")), spool.append(bundle("b"))]
    for ticket in tickets:
        spool.confirm(ticket)
    assert left(directory) == []
    spool.append(bundle("c"))
    spool.close()
    assert left(directory) == ["c"]


def test_closing_an_empty_spool_removes_its_file(directory: Path) -> None:
    spool = Spool(directory)
    spool.confirm(spool.append(bundle("a")))
    spool.close()
    assert list(directory.iterdir()) == []


def test_a_full_segment_goes_when_all_in_it_is_confirmed(directory: Path) -> None:
    big = bundle("x" * (module.SEGMENT_BYTES + 1))
    spool = Spool(directory)
    first, second = spool.append(big), spool.append(bundle("b"))
    assert len(list(directory.iterdir())) == 2
    spool.confirm(first)
    assert left(directory) == ["b"]
    spool.confirm(second)
    assert left(directory) == []


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_tail_costs_only_the_last_record(directory: Path, cut: int) -> None:
    spool = Spool(directory)
    spool.append(bundle("a"))
    spool.append(bundle("b"))
    (path,) = directory.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert left(directory) == ["a"]


def test_a_changed_byte_is_noticed(directory: Path) -> None:
    spool = Spool(directory)
    spool.append(bundle("a"))
    (path,) = directory.iterdir()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert left(directory) == []


def test_what_was_inherited_stays_until_it_is_forgotten(directory: Path) -> None:
    Spool(directory).append(bundle("a"))
    second = Spool(directory)
    second.append(bundle("b"))
    assert [items[0].data for items in second.inherited()] == ["a"]
    assert left(directory) == ["a", "b"]
    second.forget_inherited()
    assert left(directory) == ["b"]


def test_a_full_disk_refuses_without_a_torn_record(directory: Path) -> None:
    spool = Spool(directory)
    tickets, failing = [], []
    with small_files():
        for name in ("a", "x" * 500, "c"):
            tickets.append(spool.append(bundle(name)))
            failing.append(spool.failing)
    assert tickets == [1, None, 1]
    assert failing == [False, True, False]
    assert left(directory) == ["a", "c"]
    spool.confirm(None)
