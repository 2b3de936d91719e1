"""Each way in which the token endpoint says no."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from muster.errors import NotPermitted, Unauthenticated
from muster.identity.secret import digest
from muster.wire.rest import AUTH_SERVER, COMPUTE_SCOPE, COMPUTE_SERVER, NATIVE_CLIENT, PROJECTS_SCOPE


def error_of(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def as_caller(site, token: str, server: str = COMPUTE_SERVER):
    return site.run(site.authority.authenticate(f"Bearer {token}", server))


def test_a_replayed_code_is_refused_and_ends_what_it_gave(site, browser) -> None:
    code = browser.code()
    token = browser.trade(code).json()["access_token"]
    as_caller(site, token)
    assert error_of(browser.trade(code)) == (400, "invalid_grant")
    with pytest.raises(Unauthenticated):
        as_caller(site, token)


def test_a_wrong_verifier_is_refused_and_burns_the_code(browser) -> None:
    code = browser.code()
    assert error_of(browser.trade(code, code_verifier="w" * 43)) == (400, "invalid_grant")
    assert error_of(browser.trade(code)) == (400, "invalid_grant")


@pytest.mark.parametrize("verifier", [None, "", "short", "x" * 129])
def test_a_missing_or_malformed_verifier_is_refused(browser, verifier) -> None:
    assert error_of(browser.trade(browser.code(), code_verifier=verifier)) == (400, "invalid_grant")


@pytest.mark.parametrize("uri", [None, "http://127.0.0.1:1/v2/web/auth-code", "https://evil.example.com/"])
def test_another_redirect_uri_at_the_token_endpoint_is_refused(browser, uri) -> None:
    assert error_of(browser.trade(browser.code(), redirect_uri=uri)) == (400, "invalid_grant")


def test_a_code_is_good_for_its_own_client_only(site, browser) -> None:
    form = {"grant_type": "authorization_code", "code": browser.code(), "code_verifier": browser.verifier}
    answer = browser.token(form, auth=site.robot_pair)
    assert error_of(answer) == (400, "invalid_grant")


def test_an_expired_code_is_refused(site, browser) -> None:
    code = browser.code()
    grant = site.run(site.store.grant(digest(code), "code"))
    site.run(site.store.replace_grant(replace(grant, expires_at_s=time.time() - 1)))
    assert error_of(browser.trade(code)) == (400, "invalid_grant")


def test_the_reuse_of_a_rotated_refresh_token_ends_the_whole_login(site, browser) -> None:
    first = browser.tokens()
    second = browser.refresh(first["refresh_token"]).json()
    as_caller(site, second["access_token"])
    assert error_of(browser.refresh(first["refresh_token"])) == (400, "invalid_grant")
    for token in (first["access_token"], second["access_token"]):
        with pytest.raises(Unauthenticated):
            as_caller(site, token)
    assert error_of(browser.refresh(second["refresh_token"])) == (400, "invalid_grant")
    assert error_of(browser.refresh(first["other_tokens"][0]["refresh_token"])) == (400, "invalid_grant")


def test_a_renewal_cannot_widen_the_scope(browser) -> None:
    first = browser.tokens()
    answer = browser.refresh(first["refresh_token"], scope=f"{COMPUTE_SCOPE} {PROJECTS_SCOPE}")
    assert error_of(answer) == (400, "invalid_scope")
    assert browser.refresh(first["refresh_token"]).status_code == 200


def test_a_refresh_token_is_good_for_its_own_client_only(site, browser) -> None:
    first = browser.tokens()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    assert error_of(browser.token(form, auth=site.robot_pair)) == (400, "invalid_grant")
    assert browser.refresh(first["refresh_token"]).status_code == 200


def test_a_revoked_access_token_is_refused_at_once(site, browser) -> None:
    token = browser.tokens()["access_token"]
    as_caller(site, token)
    answer = browser.http.post("/v2/oauth2/token/revoke", data={"token": token, "client_id": NATIVE_CLIENT})
    assert (answer.status_code, answer.json()) == (200, {"active": False})
    with pytest.raises(Unauthenticated, match="revoked"):
        as_caller(site, token)


def test_a_revoked_refresh_token_takes_its_access_tokens_along(site, browser) -> None:
    tokens = browser.tokens()
    as_caller(site, tokens["access_token"])
    form = {"token": tokens["refresh_token"], "client_id": NATIVE_CLIENT}
    assert browser.http.post("/v2/oauth2/token/revoke", data=form).status_code == 200
    assert error_of(browser.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    with pytest.raises(Unauthenticated):
        as_caller(site, tokens["access_token"])


def test_nobody_revokes_or_inspects_another_clients_token(site, browser) -> None:
    token = browser.tokens()["access_token"]
    browser.http.post("/v2/oauth2/token/revoke", data={"token": token}, auth=site.robot_pair)
    assert as_caller(site, token)
    seen = browser.http.post("/v2/oauth2/token/introspect", data={"token": token}, auth=site.robot_pair)
    assert seen.json() == {"active": False}


def test_a_client_may_inspect_its_own_token(site, browser) -> None:
    token = site.robot_tokens()["access_token"]
    seen = browser.http.post("/v2/oauth2/token/introspect", data={"token": token}, auth=site.robot_pair).json()
    assert seen["active"]
    assert seen["aud"] == [COMPUTE_SERVER]
    assert seen["sub"] == str(site.robot.identity.id)


def test_a_token_for_another_resource_server_is_not_permitted(site) -> None:
    token = site.robot_tokens("openid")["access_token"]
    with pytest.raises(NotPermitted):
        as_caller(site, token, COMPUTE_SERVER)
    assert as_caller(site, token, AUTH_SERVER).scopes == {"openid"}


def test_an_expired_token_is_refused_and_told_so(site) -> None:
    token = site.robot_tokens()["access_token"]
    grant = site.run(site.store.grant(digest(token), "access"))
    site.run(site.store.replace_grant(replace(grant, expires_at_s=time.time() - 1)))
    with pytest.raises(Unauthenticated, match="expired"):
        as_caller(site, token)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nothing", "Bearer " + "x" * 9999]
)
def test_a_header_without_a_known_token_is_unauthenticated(site, header) -> None:
    with pytest.raises(Unauthenticated):
        site.run(site.authority.authenticate(header, COMPUTE_SERVER))


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_a_wrong_client_secret_is_answered_with_401(site, browser, secret) -> None:
    form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE}
    answer = browser.token(form, auth=(str(site.robot.client_id), secret))
    assert error_of(answer) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("client_id", ["", "not-an-id", "7d444840-9dc0-41d1-b245-5ffdce74fad2"])
def test_an_unknown_client_is_answered_with_401(browser, client_id) -> None:
    answer = browser.token({"grant_type": "refresh_token", "refresh_token": "x", "client_id": client_id})
    assert error_of(answer) == (401, "invalid_client")


def test_a_confidential_client_cannot_pass_as_a_public_one(site, browser) -> None:
    form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE, "client_id": str(site.robot.client_id)}
    assert error_of(browser.token(form)) == (401, "invalid_client")


def test_a_public_client_has_no_client_credentials(browser) -> None:
    form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE, "client_id": NATIVE_CLIENT}
    assert error_of(browser.token(form)) == (400, "unauthorized_client")


@pytest.mark.parametrize("scope", ["", "everything", f"{COMPUTE_SCOPE}[openid]", " ".join([COMPUTE_SCOPE] * 65)])
def test_a_scope_that_does_not_exist_is_refused(site, browser, scope) -> None:
    form = {"grant_type": "client_credentials", "scope": scope}
    assert error_of(browser.token(form, auth=site.robot_pair)) == (400, "invalid_scope")


def test_an_unknown_grant_type_is_refused(browser) -> None:
    form = {"grant_type": "password", "client_id": NATIVE_CLIENT}
    assert error_of(browser.token(form)) == (400, "unsupported_grant_type")


def test_a_field_that_comes_twice_is_refused(browser) -> None:
    body = f"grant_type=refresh_token&client_id={NATIVE_CLIENT}&client_id={NATIVE_CLIENT}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = browser.http.post("/v2/oauth2/token", content=body, headers=headers)
    assert error_of(answer) == (400, "invalid_request")


def test_a_form_over_the_limit_is_refused(browser) -> None:
    answer = browser.token({"grant_type": "x" * 40_000})
    assert answer.status_code == 413


def test_only_digests_of_secrets_are_stored(site, browser) -> None:
    tokens = browser.tokens()
    for secret in (tokens["access_token"], tokens["refresh_token"], site.robot.client_secret):
        for file in site.directory.iterdir():
            assert secret.encode() not in file.read_bytes()
