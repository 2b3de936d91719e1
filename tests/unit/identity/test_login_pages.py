"""What a browser sees, and what a forged or careless request gets."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx2
import pytest

from muster.identity.scopes import MEANING
from muster.model.policy import Policy
from muster.wire.rest import COMPUTE_SCOPE

PASSWORD = "correct horse battery"


def authorize(browser, **changes) -> httpx2.Response:
    return browser.open(f"/v2/oauth2/authorize?{browser.query(**changes)}")


def redirected(answer: httpx2.Response) -> dict[str, str]:
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def test_the_page_names_the_client_and_what_it_will_be_able_to_do(browser) -> None:
    page = authorize(browser)
    assert page.status_code == 200
    assert MEANING[COMPUTE_SCOPE] in page.text
    assert "muster on node1" in page.text


def test_a_login_leads_to_exactly_the_registered_page_with_code_and_state(site, browser) -> None:
    answer = browser.log_in(state="a&b=c")
    assert answer.headers["location"].startswith(f"{site.origin}/v2/web/auth-code?")
    assert redirected(answer)["state"] == "a&b=c"


def test_the_code_page_shows_the_code_to_copy(browser) -> None:
    answer = browser.log_in()
    page = browser.open(answer.headers["location"])
    assert f'<pre id="code">{redirected(answer)["code"]}</pre>' in page.text


def test_the_code_page_shows_nothing_that_is_no_code(browser) -> None:
    page = browser.open("/v2/web/auth-code?code=%3Cscript%3Ealert(1)%3C/script%3E")
    assert page.status_code == 400
    assert "<script" not in page.text


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "https://evil.example.com/v2/web/auth-code",
        "{origin}/v2/web/auth-code/",
        "{origin}/v2/web/auth-code?next=https://evil.example.com",
        "{origin}/v2/web/auth-code#x",
        "{origin}@evil.example.com/v2/web/auth-code",
        "http://127.0.0.1:9999@evil.example.com/callback",
        "http://127.0.0.1:9999/callback/../other",
        "http://localhost:9999/callback",
        "http://127.0.0.1:1; frame-ancestors */callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:x/callback",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
def test_an_unregistered_redirect_is_never_followed(site, browser, uri) -> None:
    answer = authorize(browser, redirect_uri=uri and uri.format(origin=site.origin))
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_a_program_may_listen_on_any_port_of_the_loopback_address(browser) -> None:
    answer = browser.log_in(redirect_uri="http://127.0.0.1:54321/callback")
    assert answer.headers["location"].startswith("http://127.0.0.1:54321/callback?code=")


def test_an_unknown_client_is_told_so_on_the_page(browser) -> None:
    answer = authorize(browser, client_id=str(uuid4()))
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"prompt": "none"}, "invalid_request"),
    ],
)
def test_a_request_that_lacks_something_is_answered_to_the_client(browser, changes, error) -> None:
    assert redirected(authorize(browser, **changes))["error"] == error


def test_a_wrong_password_shows_the_form_again_without_saying_which_was_wrong(browser) -> None:
    unknown = browser.log_in("nobody@example.org", "wrong password")
    wrong = browser.log_in("alice@example.org", "wrong password")
    assert unknown.status_code == wrong.status_code == 403
    assert "User name and password do not fit." in unknown.text
    assert "User name and password do not fit." in wrong.text
    assert "muster_session" not in wrong.headers.get("set-cookie", "")


def test_denying_sends_the_refusal_back(browser) -> None:
    assert redirected(browser.submit(authorize(browser), "deny"))["error"] == "access_denied"


def test_a_session_spares_the_password_but_not_the_question(browser) -> None:
    browser.log_in("alice@example.org")
    page = authorize(browser)
    assert "You are logged in as <strong>alice@example.org</strong>" in page.text
    assert 'name="password"' not in page.text
    assert "code" in redirected(browser.submit(page, "allow"))


def test_another_account_can_be_used_instead(browser) -> None:
    browser.log_in("alice@example.org")
    answer = browser.submit(authorize(browser), "switch")
    page = browser.open(answer.headers["location"])
    assert 'name="password"' in page.text


def test_prompt_login_demands_the_password_again(browser) -> None:
    browser.log_in("alice@example.org")
    page = authorize(browser, prompt="login")
    assert 'name="password"' in page.text
    again = browser.submit(page, "allow")
    assert again.status_code == 200
    assert "location" not in again.headers
    fresh = browser.submit(page, "login", username="alice@example.org", password=PASSWORD)
    assert "code" in redirected(fresh)


def test_a_required_identity_must_be_the_one_that_logs_in(site, browser) -> None:
    demands = {"session_required_identities": site.id_of("alice@example.org")}
    assert browser.log_in("harper@example.org", **demands).status_code == 403
    assert "code" in redirected(browser.log_in("alice@example.org", **demands))


def test_a_required_domain_must_be_the_one_of_the_login(browser) -> None:
    demands = {"session_required_single_domain": "example.com", "session_message": "Use <b>your</b> lab account"}
    page = authorize(browser, **demands)
    assert "Use &lt;b&gt;your&lt;/b&gt; lab account" in page.text
    assert browser.log_in("harper@example.org", **demands).status_code == 403
    assert "code" in redirected(browser.log_in("mickey97@example.com", **demands))


def test_a_required_policy_is_checked_after_the_login(site, browser) -> None:
    policy = Policy(uuid4(), uuid4(), "only the lab", include=("example.com",), session_age_s=600)
    site.run(site.store.add_project(policy.project, site.robot.identity.id, "{}"))
    site.run(site.store.add_policy(policy))
    demands = {"session_required_policies": str(policy.id)}
    refused = browser.log_in("alice@example.org", **demands)
    assert refused.status_code == 403
    assert "only the lab" in refused.text
    assert "code" in redirected(browser.log_in("mickey97@example.com", **demands))


def test_a_second_factor_cannot_be_promised(browser) -> None:
    assert browser.log_in(session_required_mfa="True").status_code == 403


def test_a_form_from_another_site_is_refused(browser) -> None:
    page = authorize(browser)
    form = {"csrf": "0" * 64, "action": "login", "username": "alice@example.org", "password": PASSWORD}
    path = f"/v2/oauth2/authorize?{browser.query()}"
    assert browser.http.post(path, data=form).status_code == 403
    for headers in ({"Origin": "https://evil.example.com"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        good = form | {"csrf": page.text.split('name="csrf" value="')[1][:64]}
        assert browser.http.post(path, data=good, headers=headers).status_code == 403


def test_a_form_is_bound_to_the_request_it_was_shown_for(browser) -> None:
    token = authorize(browser).text.split('name="csrf" value="')[1][:64]
    other = f"/v2/oauth2/authorize?{browser.query(scope='openid')}"
    form = {"csrf": token, "action": "login", "username": "alice@example.org", "password": PASSWORD}
    assert browser.http.post(other, data=form).status_code == 403


def test_a_form_is_bound_to_the_browser_it_was_shown_in(site, browser) -> None:
    token = authorize(browser).text.split('name="csrf" value="')[1][:64]
    form = {"csrf": token, "action": "login", "username": "alice@example.org", "password": PASSWORD}
    answer = httpx2.post(f"{site.origin}/v2/oauth2/authorize?{browser.query()}", data=form)
    assert answer.status_code == 403


def test_pages_run_no_script_and_fit_in_no_frame(browser) -> None:
    headers = authorize(browser).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    cookies = headers["set-cookie"].lower()
    assert "httponly" in cookies
    assert "samesite=strict" in cookies


def test_what_a_request_says_is_shown_as_text(browser) -> None:
    page = authorize(browser, prefill_named_grant="<img src=x onerror=alert(1)>")
    assert "<img" not in page.text


def test_guessing_a_password_soon_takes_too_long(site, browser) -> None:
    site.run(site.people.add("guessed@example.org", password=PASSWORD))
    statuses = [browser.log_in("guessed@example.org", "wrong password").status_code for _ in range(11)]
    assert statuses == [403] * 10 + [429]
    right = browser.log_in("guessed@example.org")
    assert right.status_code == 429
    assert int(right.headers["retry-after"]) > 60


def test_a_login_is_remembered_with_its_time(site, browser) -> None:
    before_s = int(time.time())
    tokens = browser.tokens("alice@example.org")
    caller = site.run(site.authority.authenticate(f"Bearer {tokens['access_token']}", "funcx_service"))
    assert caller.authenticated_at_s >= before_s
    assert caller.identity.last_authentication_s >= before_s
