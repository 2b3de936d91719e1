from __future__ import annotations

import pickle

import pytest

from muster.sdk import DeserializationError, TaskExecutionFailed
from muster.sdk.futures import ComputeFuture
from muster.sdk.ids import key_of, new_key, text_of
from muster.sdk.outcomes import error_of, item_of_document, items_of, resolve
from muster.serialize import Serializer
from muster.wire import bundle, envelope
from muster.wire.bundle import ResultItem
from muster.wire.rest import TaskDocument

TRACE = (
    'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    1/0\nZeroDivisionError: division by zero\n'
)
ID = "6e88e4a6-0000-7000-8000-000000000001"


def test_a_bundle_and_an_official_message_are_both_read():
    item = ResultItem(task=new_key(), data="11\n1")
    assert items_of(bundle.encode_results([item]), bundle.RESULTS) == [item]
    official = envelope.encode(envelope.ResultMessage(task_id=ID, data="11\n2"))
    assert items_of(official, None) == [ResultItem(task=key_of(ID), data="11\n2")]


def test_a_failure_keeps_its_code_and_sentence():
    error = envelope.ErrorDetails(code="WorkerLost", user_message="It died.")
    told = items_of(envelope.encode(envelope.ResultMessage(task_id=ID, data=TRACE, error_details=error)), None)
    assert (told[0].error_code, told[0].error_message) == ("WorkerLost", "It died.")


@pytest.mark.parametrize(
    "body",
    [
        b"\x01not json",
        b"\x02{}",
        envelope.encode(envelope.TaskMessage(task_id=ID, task_buffer="")),
        envelope.encode(envelope.ResultMessage(task_id="no id", data="")),
    ],
)
def test_what_is_no_result_is_dropped_so_that_it_does_not_come_back_for_ever(body):
    assert items_of(body, "application/json") == []


def test_a_task_document_becomes_a_result_only_when_the_task_has_ended():
    assert item_of_document(TaskDocument(task_id=ID, status="waiting-for-ep")) is None
    done = item_of_document(TaskDocument(task_id=ID, status="success", result="11\n1", completion_t="1.0"))
    assert done == ResultItem(task=key_of(ID), data="11\n1")
    failed = item_of_document(TaskDocument(task_id=ID, status="failed", exception=TRACE, completion_t="1.0"))
    assert isinstance(error_of(failed), TaskExecutionFailed)


def test_a_result_that_cannot_be_read_ends_its_future_with_the_reason():
    future = ComputeFuture(new_key())
    resolve(future, ResultItem(task=future.key, data="zz\nnonsense"), Serializer())
    assert isinstance(future.exception(0), DeserializationError)


def test_an_exception_of_the_function_shows_its_last_line_first_and_then_the_traceback():
    error = TaskExecutionFailed(TRACE, "1795327468.71")
    assert str(error).startswith("ZeroDivisionError: division by zero\n")
    assert "    1/0" in str(error)
    assert (error.remote_data, error.completion_t, error.code) == (TRACE, "1795327468.71", "RemoteExecutionError")


def test_a_named_outcome_starts_with_its_sentence_and_code():
    error = TaskExecutionFailed("", "1", "WorkerLost", "The worker process died (signal 9).")
    assert str(error) == "The worker process died (signal 9). [WorkerLost]"
    assert error.code == "WorkerLost"


def test_a_failure_survives_pickling():
    error = TaskExecutionFailed(TRACE, "1", "WorkerLost", "It died.")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.remote_data) == (str(error), "WorkerLost", TRACE)


def test_a_task_id_written_as_text_leads_to_the_same_future():
    key = new_key()
    assert item_of_document(TaskDocument(task_id=text_of(key), status="failed", exception="x")).task == key
