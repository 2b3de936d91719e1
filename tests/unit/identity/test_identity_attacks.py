"""Attacks on logins that need more than one step."""

from __future__ import annotations

import httpx2
import pytest

from muster.errors import Conflict, Invalid, Unauthenticated
from muster.identity.attempts import Attempts
from muster.identity.authority import DEVICE_START
from muster.identity.device import STARTS
from muster.wire.rest import COMPUTE_SCOPE, COMPUTE_SERVER, NATIVE_CLIENT, PROJECTS_SCOPE

PASSWORD = "correct horse battery"


def test_a_new_password_ends_what_the_old_one_gave_in_a_linked_name(site, browser) -> None:
    tokens = browser.tokens("mickey97@example.com")  # linked to harper, whose name the token bears
    header = f"Bearer {tokens['access_token']}"
    caller = site.run(site.authority.authenticate(header, COMPUTE_SERVER))
    assert caller.identity.username == "harper@example.org"
    _, ended = site.run(site.people.set_password("mickey97@example.com", PASSWORD))
    assert ended >= 2
    assert browser.refresh(tokens["refresh_token"]).status_code == 400
    site.authority._bearer.forget(person=caller.identity)  # as after its few seconds, in another process
    with pytest.raises(Unauthenticated):
        site.run(site.authority.authenticate(header, COMPUTE_SERVER))


def test_nobody_fills_the_store_with_logins_that_are_never_finished(site, browser) -> None:
    form = {"client_id": "of nobody", "scope": COMPUTE_SCOPE}
    answers: list[httpx2.Response] = [browser.http.post(DEVICE_START, data=form) for _ in range(STARTS + 1)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 503
    assert "Try again in" in answers[-1].json()["message"]
    assert browser.http.post(DEVICE_START, data=form | {"client_id": NATIVE_CLIENT}).status_code == 503


@pytest.mark.parametrize(
    "name", ["al\u200bice", "\u202ealice", "alice\u00ad", "\uff41lice", "ALICE", "alic\u0065\u0301"]
)
def test_nobody_is_called_nearly_like_somebody_else(site, name) -> None:
    with pytest.raises((Invalid, Conflict)):
        site.run(site.people.add(f"{name}@example.org"))


@pytest.mark.parametrize(
    "body", [b'{"project":{"display_name":"\xff"}}', b'{"z":' + b"[" * 15_000, b"\xff", b'"\\ud800"']
)
def test_json_that_is_none_is_refused_and_no_mistake_of_ours(site, browser, body) -> None:
    header = {"Authorization": f"Bearer {site.robot_tokens(PROJECTS_SCOPE)['access_token']}"}
    answer = browser.http.post("/v2/api/projects", content=body, headers=header)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("header", [b"Basic YTpi\xff", b"Basic /w==", b"Basic", b"Bearer x", b"Basic JTAwOiUwMA=="])
def test_a_header_that_is_no_pair_is_an_unknown_client(browser, header) -> None:
    answer = browser.token({"grant_type": "client_credentials"}, headers=[(b"Authorization", header)])
    assert answer.status_code == 401, answer.text


def test_a_limit_is_over_when_its_time_is() -> None:
    now_s = 0.0
    attempts = Attempts(2, 10, clock=lambda: now_s)
    attempts.failed("a")
    attempts.failed("a")
    assert attempts.wait_s("a") == 10
    now_s = 11.0
    assert attempts.wait_s("a") == 0
