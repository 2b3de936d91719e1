from __future__ import annotations

import threading

from muster.sdk.batching import Call, Code, Lane, Outbox
from muster.sdk.futures import ComputeFuture
from muster.sdk.ids import new_key

HERE = Lane("group", "endpoint")
THERE = Lane("group", "endpoint", config='{"ACCOUNT_ID":"alice"}')


def call(payload: str = "payload") -> Call:
    return Call(ComputeFuture(new_key()), Code(id="function"), payload)


def filled(*calls: tuple[Lane, Call]) -> Outbox:
    outbox = Outbox()
    for lane, one in calls:
        assert outbox.put(lane, one)
    return outbox


def test_what_queued_up_goes_together_in_order():
    calls = [call() for _ in range(10)]
    outbox = filled(*[(HERE, one) for one in calls])
    assert outbox.take(1000) == (HERE, calls)


def test_a_batch_holds_no_more_tasks_than_asked_for():
    calls = [call() for _ in range(10)]
    outbox = filled(*[(HERE, one) for one in calls])
    sizes = [len(outbox.take(4)[1]) for _ in range(3)]
    assert sizes == [4, 4, 2]


def test_a_batch_ends_before_it_grows_too_large():
    outbox = filled(*[(HERE, call("x" * 40)) for _ in range(5)])
    assert len(outbox.take(1000, limit_bytes=100)[1]) == 2


def test_a_single_large_call_still_goes():
    outbox = filled((HERE, call("x" * 1000)), (HERE, call()))
    assert len(outbox.take(1000, limit_bytes=100)[1]) == 1


def test_different_configurations_are_never_in_one_batch():
    here, there = call(), call()
    outbox = filled((HERE, here), (THERE, there))
    assert outbox.take(1000) == (HERE, [here])
    assert outbox.take(1000) == (THERE, [there])


def test_a_long_lane_does_not_starve_the_others():
    there = call()
    outbox = filled(*[(HERE, call()) for _ in range(10)], (THERE, there))
    assert [outbox.take(3)[0] for _ in range(3)] == [HERE, THERE, HERE]


def test_a_waiting_sender_is_woken_by_the_first_call():
    outbox, got = Outbox(), []
    sender = threading.Thread(target=lambda: got.append(outbox.take(10)))
    sender.start()
    one = call()
    outbox.put(HERE, one)
    sender.join(5)
    assert got == [(HERE, [one])]


def test_after_closing_the_rest_is_still_given_out_and_nothing_is_taken():
    one = call()
    outbox = filled((HERE, one))
    outbox.close()
    assert not outbox.put(HERE, call())
    assert outbox.take(10) == (HERE, [one])
    assert outbox.take(10) is None


def test_draining_takes_back_what_was_not_given_out():
    calls = [call(), call()]
    outbox = filled((HERE, calls[0]), (THERE, calls[1]))
    assert outbox.drain() == calls
    outbox.close()
    assert outbox.take(10) is None
