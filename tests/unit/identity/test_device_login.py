"""A login by a short code (RFC 8628)."""

from __future__ import annotations

from typing import Any

import pytest

from muster.identity.authority import DEVICE_START
from muster.identity.grants import DEVICE_GRANT
from muster.identity.pending import plain_user_code
from muster.wire.rest import COMPUTE_SCOPE, COMPUTE_SERVER, NATIVE_CLIENT

PASSWORD = "correct horse battery"


@pytest.fixture
def started(browser) -> dict[str, Any]:
    form = {"client_id": NATIVE_CLIENT, "scope": f"{COMPUTE_SCOPE} openid"}
    answer = browser.http.post(DEVICE_START, data=form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def poll(browser, started):
    form = {"grant_type": DEVICE_GRANT, "client_id": NATIVE_CLIENT, "device_code": started["device_code"]}
    return browser.token(form)


def approve(browser, started, action: str = "login"):
    page = browser.open(f"/device?user_code={started['user_code']}")
    return browser.submit(page, action, username="alice@example.org", password=PASSWORD)


def test_the_start_says_where_to_go_and_for_how_long(site, started) -> None:
    assert started["verification_uri"] == f"{site.origin}/device"
    assert started["interval"] >= 5
    assert started["expires_in"] > 60
    assert len(started["user_code"]) == 9


def test_until_somebody_decides_it_is_pending(browser, started) -> None:
    assert poll(browser, started).json()["error"] == "authorization_pending"


def test_asking_too_often_is_told(browser, started) -> None:
    poll(browser, started)
    assert poll(browser, started).json()["error"] == "slow_down"


def test_an_approved_code_gives_tokens_once(site, browser, started) -> None:
    assert "Done" in approve(browser, started).text
    tokens = poll(browser, started).json()
    assert tokens["resource_server"] == COMPUTE_SERVER
    assert tokens["refresh_token"]
    caller = site.run(site.authority.authenticate(f"Bearer {tokens['access_token']}", COMPUTE_SERVER))
    assert caller.identity.username == "alice@example.org"
    assert poll(browser, started).json()["error"] == "invalid_grant"


def test_a_denied_code_gives_nothing(browser, started) -> None:
    approve(browser, started, "deny")
    assert poll(browser, started).json()["error"] == "access_denied"
    assert poll(browser, started).json()["error"] == "invalid_grant"


def test_a_code_is_decided_once(browser, started) -> None:
    approve(browser, started)
    assert browser.open(f"/device?user_code={started['user_code']}").status_code == 404


def test_the_page_shows_the_code_to_compare(browser, started) -> None:
    page = browser.open(f"/device?user_code={started['user_code'].lower().replace('-', ' ')}")
    assert started["user_code"] in page.text


def test_a_wrong_password_approves_nothing(browser, started) -> None:
    page = browser.open(f"/device?user_code={started['user_code']}")
    answer = browser.submit(page, "login", username="alice@example.org", password="wrong password")
    assert answer.status_code == 403
    assert poll(browser, started).json()["error"] == "authorization_pending"


def test_a_form_without_the_browsers_token_approves_nothing(browser, started) -> None:
    form = {"csrf": "0" * 64, "action": "login", "username": "alice@example.org", "password": PASSWORD}
    assert browser.http.post(f"/device?user_code={started['user_code']}", data=form).status_code == 403
    assert poll(browser, started).json()["error"] == "authorization_pending"


def test_a_confidential_client_needs_no_device(site, browser) -> None:
    answer = browser.http.post(DEVICE_START, data={"scope": COMPUTE_SCOPE}, auth=site.robot_pair)
    assert answer.json()["error"] == "unauthorized_client"


@pytest.mark.parametrize(
    ("typed", "plain"),
    [("BCDF-GHJK", "BCDFGHJK"), ("bcdf ghjk", "BCDFGHJK"), ("BCDF", ""), ("", ""), ("BCDFGHJK" * 9, "")],
)
def test_a_code_is_understood_however_it_is_typed(typed: str, plain: str) -> None:
    assert plain_user_code(typed) == plain
