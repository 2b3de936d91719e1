"""Documents and messages of the service, built from plain facts."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from muster.errors import Invalid, StartFailed, Unmapped
from muster.model.endpoint import Endpoint, EndpointKind, UserEndpoint, UserEndpointKey
from muster.model.identity import Identity
from muster.model.policy import Policy
from muster.model.task import Outcome, Task
from muster.service.desk import demands
from muster.service.endings import outcome_of
from muster.service.functions import wrap_source
from muster.service.heartbeats import is_idle, period_of
from muster.service.ids import time_ordered_ids
from muster.service.launches import start_error
from muster.service.notices import as_item, as_message
from muster.service.orders import command
from muster.service.outbox import portions
from muster.service.results import from_bundle, from_message
from muster.service.tasks import finished_document
from muster.wire import bundle
from muster.wire.command import decode_command, decode_payload
from muster.wire.envelope import ErrorDetails, ResultMessage, TaskStatus
from muster.wire.order import LIMIT_BYTES
from muster.wire.rest import LIMIT_RESULT_CHARACTERS
from muster_root.order import read as read_order

MANAGER = Endpoint(uuid4(), uuid4(), "cluster", EndpointKind.MANAGER, multi_user=True)
HARPER = Identity(uuid4(), "harper@example.org", "Harper", issuer="local", issuer_name="Here")
LINKED = Identity(uuid4(), "harper@example.com", last_authentication_s=1_795_327_406)
KEY = UserEndpointKey.of(MANAGER.id, HARPER.id, {"hb": 5})
UEP = UserEndpoint(KEY, '{"hb": 5}', '{"python_version": "3.11"}')
URL = "amqp://user:secret@broker:5672/%2F"


def test_ids_ascend_and_never_repeat() -> None:
    ids = time_ordered_ids(10_000)
    assert len(set(ids)) == 10_000
    assert all(id_.version == 7 and id_.variant == "specified in RFC 4122" for id_ in ids)
    few = time_ordered_ids(4000)
    assert few == sorted(few)


def test_an_official_manager_gets_the_official_command() -> None:
    sent = json.loads(command(MANAGER, UEP, [HARPER, LINKED], URL))
    assert set(sent) == {
        "command",
        "globus_username",
        "globus_effective_identity",
        "globus_identity_set",
        "args",
        "kwargs",
    }
    assert sent["command"] == "cmd_start_endpoint"
    assert sent["args"] == []
    assert set(sent["kwargs"]) == {"name", "user_opts", "user_runtime", "amqp_creds"}
    assert sent["kwargs"]["name"] == f"uep.{MANAGER.id}.{UEP.id}"
    assert sent["kwargs"]["user_opts"] == {"hb": 5}
    first = sent["globus_identity_set"][0]
    assert first["id"] == first["sub"] == str(HARPER.id) == sent["globus_effective_identity"]
    assert first["status"] == "used"
    results = sent["kwargs"]["amqp_creds"]["result_queue_info"]
    assert results["queue_publish_kwargs"]["routing_key"] == f"{UEP.id}.results"


def test_a_sealed_order_binds_recipient_payload_and_identities() -> None:
    key = b"k" * 32
    manager = replace(MANAGER, seal_key=key, bundles=True, allowed_functions=(uuid4(),))
    sealed = decode_command(command(manager, UEP, [HARPER, LINKED], URL)).sealed
    again = decode_command(command(manager, UEP, [HARPER, LINKED], URL)).sealed
    assert sealed is not None
    assert again is not None
    assert sealed.order != again.order, "a nonce is used once"
    assert sealed.seal == hmac.digest(key, sealed.order, "sha256")
    assert sha256(sealed.payload.encode()).digest() in sealed.order
    for text in (str(MANAGER.id), KEY.name, "harper@example.org", "harper@example.com", "1795327406"):
        assert text.encode() in sealed.order
    payload = decode_payload(sealed.payload)
    assert payload.allowed_functions == [str(manager.allowed_functions[0])] if manager.allowed_functions else False
    assert payload.bundles == bundle.VERSION


def test_the_start_error_keeps_what_the_site_said() -> None:
    assert isinstance(start_error("IDENTITY_UNMAPPED", "who?"), Unmapped)
    assert start_error("IDENTITY_UNMAPPED", "No account.").message().startswith("No account. Ask the endpoint's")
    failed = start_error("START_FAILED", "no such module")
    assert isinstance(failed, StartFailed)
    assert "no such module" in failed.message()


@pytest.mark.parametrize("period", [float("nan"), float("inf"), -1, "soon", None, 10**9, True])
def test_a_nonsensical_period_is_the_default(period: object) -> None:
    assert period_of({"heartbeat_period": period}) in (30.0, 1.0)


def test_only_who_says_so_is_idle() -> None:
    assert is_idle({"outstanding_tasks": 0, "pending_tasks": 0})
    assert not is_idle({"outstanding_tasks": 1})
    assert not is_idle({"outstanding_tasks": 0, "pending_tasks": 3})
    assert not is_idle({})


def task(payload: str = "p", function: UUID | None = None) -> Task:
    return Task(uuid4(), uuid4(), HARPER.id, UEP.id, function or uuid4(), payload)


def test_bundles_stay_within_both_limits_and_keep_the_order() -> None:
    one, two = uuid4(), uuid4()
    code = {one: "c" * 100, two: "d" * (bundle.MAX_BYTES - 1)}
    tasks = [task("p" * 10, one) for _ in range(bundle.MAX_ITEMS + 5)] + [task("p", two), task("p", one)]
    out = portions(tasks, code)
    assert [t for some in out for t in some] == tasks
    assert [len(some) for some in out] == [bundle.MAX_ITEMS, 5, 1, 1]


def test_an_outcome_survives_the_way_through_a_bundle() -> None:
    first = Outcome(uuid4(), "00\nx", None, '{"os":"linux"}', 1, 2, 3.0)
    second = replace(first, task=uuid4(), error=("RemoteExecutionError", "boom"), data="Traceback")
    items = [as_item(first, first.details), as_item(second, None)]
    back = from_bundle(bundle.decode_results(bundle.encode_results(items)))
    assert [replace(outcome, completed_at_s=3.0) for outcome in back] == [first, second]


def test_an_outcome_survives_the_way_through_an_official_message() -> None:
    outcome = Outcome(uuid4(), "Traceback", ("RemoteExecutionError", "boom"), '{"os": "linux"}', 1, 2, 3.0)
    assert replace(from_message(as_message(outcome)), completed_at_s=3.0) == outcome


def test_details_that_are_no_object_are_replaced() -> None:
    items = [bundle.ResultItem(uuid4().bytes, "00\nx", details=text) for text in ("[1]", "{", "null", "9" * 10)]
    assert [outcome.details for outcome in from_bundle(items)] == ["{}"] * 4


def test_a_result_over_the_limit_becomes_the_official_error() -> None:
    message = ResultMessage(task_id=str(uuid4()), data="x" * (LIMIT_RESULT_CHARACTERS + 1))
    outcome = from_message(message)
    assert outcome.error is not None
    assert outcome.error[0] == "MaxResultSizeExceeded"
    assert outcome.data == f"MaxResultSizeExceeded({LIMIT_RESULT_CHARACTERS + 1}, {LIMIT_RESULT_CHARACTERS})"


def test_nul_characters_never_reach_the_database() -> None:
    failed = ErrorDetails(code="E", user_message="a\x00b")
    outcome = from_message(ResultMessage(task_id=str(uuid4()), data="\x00", error_details=failed))
    assert "\x00" not in outcome.data
    assert outcome.error == ("E", "a\ufffdb")


def test_a_failed_document_has_an_exception_and_no_result() -> None:
    document = finished_document(outcome_of(task(), StartFailed(why="no disk")))
    assert (document.status, document.result, document.error_code) == ("failed", None, "START_FAILED")
    assert document.exception == document.reason == "The user endpoint could not start: no disk"
    assert float(document.completion_t or 0) > 0


def test_a_successful_document_has_transitions_in_seconds() -> None:
    statuses = [TaskStatus(timestamp=1_500_000_000, state="execution-start")]
    outcome = from_message(ResultMessage(task_id=str(uuid4()), data="00\nx", task_statuses=statuses))
    assert (finished_document(outcome).details or {})["task_transitions"] == {"execution-start": 1.5}


def test_source_is_wrapped_as_workers_read_it() -> None:
    assert wrap_source("f", "def f(): pass") == "18\nst\nf:def f(): pass"
    with pytest.raises(Invalid):
        wrap_source("f:\nimport os", "")


def test_a_policy_demands_what_a_login_can_give() -> None:
    policy = Policy(uuid4(), uuid4(), "campus", include=("example.org", "*.edu"))
    demanded = demands(policy, "log in again")
    assert demanded["session_required_policies"] == [str(policy.id)]
    assert demanded["session_required_single_domain"] == ["example.org"]
    assert demanded["session_message"] == "log in again"


def test_an_order_is_never_too_large_and_holds_the_first_identities() -> None:
    key = b"k" * 32
    wide = "\U0001f600" * 256
    crowd = [
        replace(
            HARPER, id=uuid4(), username=f"n{at}@example.org", name=wide, email=wide, organization=wide, issuer=wide
        )
        for at in range(200)
    ]
    sealed = decode_command(command(replace(MANAGER, seal_key=key), UEP, crowd, URL)).sealed
    assert sealed is not None
    assert len(sealed.order) <= LIMIT_BYTES
    names = [identity["username"] for identity in read_order(sealed.order).identities]
    assert len(names) > 5
    assert names == [f"n{at}@example.org" for at in range(len(names))]


def test_a_field_that_is_too_long_is_left_out_and_never_cut_into_another_name() -> None:
    long = replace(HARPER, username="h" * 244 + "@example.org" + ".elsewhere.example.com")
    sealed = decode_command(command(replace(MANAGER, seal_key=b"k" * 32), UEP, [long], URL)).sealed
    assert sealed is not None
    (identity,) = read_order(sealed.order).identities
    assert "username" not in identity
    assert identity["id"] == str(HARPER.id)
