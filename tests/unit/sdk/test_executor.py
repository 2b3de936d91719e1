from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from uuid import uuid4

import pytest

from muster import Client, Executor, TaskExecutionFailed, TaskPending
from muster.errors import NotPermitted, Refusal, TooLarge
from muster.sdk import ShellFunction


@pytest.fixture
def executor(client, endpoint_id):
    with Executor(endpoint_id, client) as ex:
        yield ex


def double(n):
    return n * 2


def fail(text):
    raise ValueError(text)


def muster_threads():
    return [t for t in threading.enumerate() if t.name.startswith("muster")]


def test_a_function_runs_and_its_value_comes_back(executor):
    assert executor.submit(double, 21).result(10) == 42


def test_constructing_connects_nothing():
    before = muster_threads()
    with Executor(uuid4()):
        assert muster_threads() == before


def test_no_thread_is_left_behind(client, endpoint_id):
    with Executor(endpoint_id, client) as ex:
        ex.submit(double, 1).result(10)
        assert muster_threads()
    assert not muster_threads()


def test_leaving_the_block_waits_for_all(client, endpoint_id):
    with Executor(endpoint_id, client) as ex:
        futures = [ex.submit(double, n) for n in range(50)]
    assert [future.result(0) for future in futures] == [n * 2 for n in range(50)]


def test_submits_one_after_another_are_not_throttled(executor):
    begun = time.monotonic()
    for n in range(10):
        assert executor.submit(double, n).result(10) == 2 * n
    assert time.monotonic() - begun < 4  # the official client waits as long before each call after the fourth


def test_executors_one_after_the_other_use_one_client(client, endpoint_id):
    for n in range(5):
        with Executor(endpoint_id, client) as ex:
            assert ex.submit(double, n).result(10) == 2 * n


def test_two_executors_at_once_each_get_their_own(client, endpoint_id):
    with Executor(endpoint_id, client) as one, Executor(endpoint_id, client) as two:
        assert one.task_group_id != two.task_group_id
        futures = [(n, ex.submit(double, n)) for n in range(40) for ex in (one, two)]
        assert all(future.result(10) == 2 * n for n, future in futures)


def test_an_exception_comes_back_with_its_traceback(executor):
    with pytest.raises(TaskExecutionFailed) as caught:
        executor.submit(fail, "no such atom").result(10)
    assert str(caught.value).startswith("ValueError: no such atom\n")
    assert "in fail" in str(caught.value)


def test_what_queues_up_during_a_post_goes_with_the_next(stage, executor):
    stage.held = threading.Event()
    futures = [executor.submit(double, n) for n in range(500)]
    stage.held.set()
    assert [future.result(10) for future in futures] == [n * 2 for n in range(500)]
    assert len(stage.submissions) <= 3
    assert executor.task_count_submitted == 500


def test_an_explicit_batch_size_is_honoured(stage, client, endpoint_id):
    stage.held = threading.Event()
    with Executor(endpoint_id, client, batch_size=10) as ex:
        futures = [ex.submit(double, n) for n in range(95)]
        stage.held.set()
        concurrent.futures.wait(futures, 10)
    sizes = [sum(map(len, document["tasks"].values())) for document in stage.submissions]
    assert max(sizes) == 10
    assert sum(sizes) == 95


def test_tasks_go_with_the_configuration_of_the_moment_they_were_submitted(stage, executor):
    for account in ("a", "b", "a"):
        executor.user_endpoint_config = {"ACCOUNT_ID": account}
        executor.submit(double, 1)
    executor.user_endpoint_config["ACCOUNT_ID"] = "c"  # changed in place
    executor.submit(double, 1).result(10)
    seen = {document["user_endpoint_config"]["ACCOUNT_ID"] for document in stage.submissions}
    executor.shutdown()
    assert seen | {d["user_endpoint_config"]["ACCOUNT_ID"] for d in stage.submissions} == {"a", "b", "c"}


def test_a_function_is_registered_once_however_often_it_is_used_or_defined(stage, executor):
    text = "def same(n):\n    return n + 1\n"
    for n in range(5):
        names: dict[str, object] = {}
        exec(text, names)
        assert executor.submit(names["same"], n).result(10) == n + 1
    assert len(stage.functions) == 1


def test_a_refused_post_fails_its_own_futures_and_the_executor_lives_on(stage, executor):
    stage.answers = [(403, "FORBIDDEN")]
    lost = executor.submit(double, 1)
    assert isinstance(lost.exception(10), NotPermitted)
    assert executor.submit(double, 2).result(10) == 4


def test_a_refused_function_fails_only_its_own_calls(stage, executor):
    stage.refused_functions.add("fail")
    stage.held = threading.Event()
    futures = [executor.submit(fail, "x"), executor.submit(double, 3)]
    stage.held.set()
    assert isinstance(futures[0].exception(10), NotPermitted)
    assert futures[1].result(10) == 6


def test_every_future_of_a_failed_batch_raises_an_exception_of_its_own(stage, executor):
    stage.answers = [(422, "SEMANTICALLY_INVALID")] * 2
    futures = [executor.submit(double, n) for n in range(2)]
    errors = [future.exception(10) for future in futures]
    assert all(isinstance(error, Refusal) for error in errors)
    assert errors[0] is not errors[1]


@pytest.mark.parametrize("answers", [[(503, "UNAVAILABLE")] * 2, [(0, "")], [(0, ""), (503, "UNAVAILABLE")]])
def test_an_outage_is_waited_out_and_no_task_runs_twice(stage, executor, answers):
    stage.answers = list(answers)
    futures = [executor.submit(double, n) for n in range(5)]
    assert [future.result(30) for future in futures] == [0, 2, 4, 6, 8]
    assert set(stage.runs.values()) == {1}


def test_arguments_over_the_limit_fail_alone(stage, executor):
    import os

    large = executor.submit(double, os.urandom(9_000_000))
    assert isinstance(large.exception(0), TooLarge)
    assert executor.submit(double, 4).result(10) == 8


def test_a_result_whose_message_was_lost_is_found_by_asking(stage, executor):
    executor.submit(double, 1).result(10)
    stage.silent = True
    future = executor.submit(double, 5)
    while future.sent_at_s is None:
        assert not future.done()
    executor.client.results_reader()._poll.soon()  # as after a reconnect
    assert future.result(10) == 10


def test_a_task_that_the_service_has_lost_does_not_wait_for_ever(stage, executor):
    executor.submit(double, 1).result(10)
    stage.silent = True
    future = executor.submit(double, 5)
    while future.sent_at_s is None:
        assert not future.done()
    stage.documents.clear()
    executor.client.results_reader()._poll.soon()
    assert "No such task" in str(future.exception(10))


def test_a_broker_that_comes_back_empty_costs_nothing(stage, executor):
    assert executor.submit(double, 1).result(10) == 2
    stage.forget_queues()
    stage.silent = True
    pending = executor.submit(double, 2)
    assert pending.result(60) == 4
    stage.silent = False
    assert executor.submit(double, 3).result(60) == 6


def test_results_come_back_after_every_connection_was_cut(stage, executor):
    executor.submit(double, 1).result(10)
    stage.do(cut(stage.broker))
    assert executor.submit(double, 2).result(30) == 4


async def cut(broker):
    names = {connection.username for connection in broker._open}
    broker.disconnect(names)


def test_large_results_come_back_whole(executor):
    assert len(executor.submit(lambda n: b"x" * n, 1_000_000).result(20)) == 1_000_000


def test_map_gives_results_in_order(executor):
    assert list(executor.map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]


def test_map_submits_at_once_and_before_the_first_result_is_asked_for(stage, executor):
    results = executor.map(double, iter(range(10)))
    assert executor.task_count_submitted == 10
    assert list(results) == [n * 2 for n in range(10)]


def test_map_raises_where_the_failed_result_is_due(executor):
    results = executor.map(lambda n: 10 // n, [5, 2, 0, 1])
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(TaskExecutionFailed, match="ZeroDivisionError"):
        next(results)


def test_map_stops_at_its_timeout_and_cancels_what_was_not_sent(stage, executor):
    stage.held = threading.Event()
    results = executor.map(double, range(3), timeout=0.2)
    with pytest.raises(TimeoutError):
        next(results)
    stage.held.set()


def test_map_with_progress_gives_the_same(client, endpoint_id, capfd):
    with Executor(endpoint_id, client, progress=True) as ex:
        assert list(ex.map(double, range(5))) == [0, 2, 4, 6, 8]
    assert capfd.readouterr().out == ""


def test_a_future_that_was_not_sent_can_be_cancelled_and_never_runs(stage, executor):
    stage.held = threading.Event()
    first = executor.submit(double, 1)
    while not first.running():
        assert not first.done()
    second = executor.submit(double, 2)
    assert second.cancel()
    stage.held.set()
    assert first.result(10) == 2
    executor.shutdown()
    assert second.task_id not in stage.runs


def test_shutting_down_with_cancel_ends_every_future_even_without_a_service(stage, client, endpoint_id):
    ex = Executor(endpoint_id, client)
    stage.held = threading.Event()
    futures = [ex.submit(double, n) for n in range(10)]
    while not futures[0].running():
        assert not futures[0].done()
    ex.shutdown(wait=False, cancel_futures=True)
    for future in futures:
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)
    stage.held.set()
    ex.shutdown()


def test_after_shutdown_nothing_is_taken(client, endpoint_id):
    ex = Executor(endpoint_id, client)
    ex.submit(double, 1)
    ex.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        ex.submit(double, 2)


def test_without_an_endpoint_the_message_says_how_to_name_one(client):
    with pytest.raises(ValueError, match="endpoint_id"):
        Executor(client=client).submit(double, 1)


async def test_futures_can_be_awaited_together(client, endpoint_id):
    with Executor(endpoint_id, client) as ex:
        assert await asyncio.gather(*(ex.submit(double, n) for n in range(10))) == [n * 2 for n in range(10)]


def test_tasks_of_a_group_are_found_again_by_another_executor(stage, client, endpoint_id):
    with Executor(endpoint_id, client) as first:
        done = [first.submit(double, n) for n in range(5)]
    stage.silent = True
    with Executor(endpoint_id, client, task_group_id=first.task_group_id) as second:
        found = {future.task_id: future for future in second.reload_tasks()}
        assert [found[future.task_id].result(10) for future in done] == [0, 2, 4, 6, 8]


def test_tasks_still_under_way_are_awaited_after_a_reload(stage, client, endpoint_id):
    group = str(uuid4())
    stage.declare(group)
    task = str(uuid4())
    stage.groups[group] = [task]
    stage.documents[task] = {"status": "waiting-for-ep"}
    with Executor(endpoint_id, client, task_group_id=group) as ex:
        (future,) = ex.reload_tasks()
        assert not future.done()
        assert future.status() == "waiting-for-ep"
        from muster.sdk.ids import key_of
        from muster.wire.bundle import ResultItem

        stage.publish(group, [ResultItem(task=key_of(task), data=stage.serializer.serialize("late"))])
        assert future.result(10) == "late"


def test_a_registered_function_runs_by_its_id(executor):
    function_id = executor.register_function(double)
    assert executor.submit_to_registered_function(function_id, (4,)).result(10) == 8
    assert executor.submit(double, 5).result(10) == 10


def test_source_code_can_be_registered(executor):
    function_id = executor.register_source_code("def twice(n):\n    return n + n\n", "twice")
    assert executor.submit_to_registered_function(function_id, kwargs={"n": "a"}).result(10) == "aa"


def test_a_shell_function_is_submitted_like_any_other(executor):
    result = executor.submit(ShellFunction("echo {word}"), word="hello").result(10)
    assert (result.stdout, result.returncode) == ("hello\n", 0)


def test_a_worker_describes_its_machine(executor):
    assert "cores" in executor.get_worker_hardware_details()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"api_burst_limit": 9},
        {"api_burst_window_s": 0},
        {"amqp_port": 70000},
        {"endpoint_id": "x"},
        {"task_group_id": "x"},
    ],
)
def test_wrong_constructor_values_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Executor(**wrong)


def test_the_client_submits_and_asks(client: Client, endpoint_id):
    function_id = client.register_function(double)
    task_id = client.run(6, endpoint_id=endpoint_id, function_id=function_id)
    assert client.get_result(task_id) == 12
    with pytest.raises(TaskPending):
        client.get_result(uuid4())
    batch = client.create_batch()
    ids = [batch.add(function_id, (n,)) for n in range(3)]
    assert client.batch_run(endpoint_id, batch)["tasks"] == {function_id: ids}
    results = client.get_batch_result(ids)
    assert [results[task_id]["result"] for task_id in ids] == [0, 2, 4]


def test_a_script_that_ends_right_after_submitting_has_submitted(stage, endpoint_id):
    import subprocess
    import sys

    code = f"""
from muster import Client, Executor
class Pass:
    get_authorization_header = lambda self: "Bearer good"
ex = Executor("{endpoint_id}", Client(service_url="{stage.url}", authorizer=Pass()))
for n in range(100):
    ex.submit(abs, n)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    assert len(stage.runs) == 100
    assert time.monotonic() - began < 20
