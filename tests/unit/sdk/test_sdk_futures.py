from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, wait

import pytest

from muster.sdk.futures import ComputeFuture, abandon, settle
from muster.sdk.ids import new_key


def test_the_id_is_known_from_the_start():
    key = new_key()
    assert ComputeFuture(key).task_id.replace("-", "") == key.hex()


async def test_a_future_can_be_awaited():
    future = ComputeFuture(new_key())
    asyncio.get_running_loop().call_soon(settle, future, 42)
    assert await future == 42


async def test_awaiting_a_failed_future_raises_what_failed():
    future = ComputeFuture(new_key())
    settle(future, error=ZeroDivisionError("by zero"))
    with pytest.raises(ZeroDivisionError):
        await future


async def test_many_futures_can_be_gathered():
    futures = [ComputeFuture(new_key()) for _ in range(20)]
    loop = asyncio.get_running_loop()
    for n, future in enumerate(futures):
        loop.call_soon(settle, future, n)
    assert await asyncio.gather(*futures) == list(range(20))


def test_before_it_is_sent_a_future_can_be_cancelled_and_after_that_not():
    early, late = ComputeFuture(new_key()), ComputeFuture(new_key())
    assert early.cancel()
    assert not early.set_running_or_notify_cancel()
    assert late.set_running_or_notify_cancel()
    assert not late.cancel()
    assert late.running()


def test_a_second_result_changes_nothing():
    future = ComputeFuture(new_key())
    settle(future, 1)
    settle(future, 2)
    settle(future, error=ValueError())
    assert future.result(0) == 1


@pytest.mark.parametrize("sent", [False, True])
def test_an_abandoned_future_ends_whether_sent_or_not(sent):
    future = ComputeFuture(new_key())
    if sent:
        future.set_running_or_notify_cancel()
    abandon(future)
    assert wait([future], 1).done or future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)


def test_the_status_of_a_sent_task_is_asked_for_and_of_others_known():
    asked: list[str] = []

    def ask(task_id: str) -> str:
        asked.append(task_id)
        return "waiting-for-launch"

    future = ComputeFuture(new_key(), ask)
    assert future.status() == "not sent yet"
    future.sent_at_s = 1.0
    assert future.status() == "waiting-for-launch"
    settle(future, 1)
    assert future.status() == "success"
    failed = ComputeFuture(new_key(), ask)
    settle(failed, error=ValueError())
    assert failed.status() == "failed"
    gone = ComputeFuture(new_key(), ask)
    gone.cancel()
    assert gone.status() == "cancelled"
    assert asked == [future.task_id]
