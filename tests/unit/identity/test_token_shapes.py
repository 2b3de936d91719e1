"""The answers of the token endpoint, member by member as official clients index them."""

from __future__ import annotations

from typing import Any

import httpx2
from joserfc import jwt
from joserfc.jwk import RSAKey

from muster.wire.rest import AUTH_SERVER, COMPUTE_SCOPE, COMPUTE_SERVER, NATIVE_CLIENT, PROJECTS_SCOPE

PART = {"access_token", "scope", "expires_in", "token_type", "resource_server"}


def test_a_service_account_gets_exactly_one_token_though_it_repeats_its_scope(site) -> None:
    answer = site.robot_tokens(f"{COMPUTE_SCOPE} {COMPUTE_SCOPE} {COMPUTE_SCOPE}")
    assert answer["other_tokens"] == []
    assert set(answer) == PART | {"other_tokens"}
    assert (answer["resource_server"], answer["token_type"]) == (COMPUTE_SERVER, "Bearer")
    assert answer["scope"].split() == [COMPUTE_SCOPE]


def test_a_service_account_may_send_its_secret_in_the_form(site) -> None:
    client_id, secret = site.robot_pair
    form = {
        "grant_type": "client_credentials",
        "scope": COMPUTE_SCOPE,
        "client_id": client_id,
        "client_secret": secret,
    }
    assert httpx2.post(f"{site.origin}/v2/oauth2/token", data=form).json()["resource_server"] == COMPUTE_SERVER


def test_scopes_of_the_identity_service_make_one_token_with_an_id_token(site) -> None:
    answer = site.robot_tokens(f"openid openid {PROJECTS_SCOPE} openid {PROJECTS_SCOPE}")
    assert answer["resource_server"] == AUTH_SERVER
    assert answer["other_tokens"] == []
    assert answer["scope"].split() == ["openid", PROJECTS_SCOPE]
    assert claims(site, answer)["aud"] == str(site.robot.client_id)


def test_a_login_gives_one_document_and_one_refresh_token_for_each_resource_server(browser) -> None:
    answer = browser.tokens()
    assert set(answer) == PART | {"refresh_token", "other_tokens", "id_token", "state"}
    assert answer["state"] == "_default"
    assert answer["resource_server"] == COMPUTE_SERVER
    (other,) = answer["other_tokens"]
    assert set(other) == PART | {"refresh_token"}
    assert other["resource_server"] == AUTH_SERVER
    assert set(other["scope"].split()) == {"openid", PROJECTS_SCOPE}
    secrets = {answer["access_token"], answer["refresh_token"], other["access_token"], other["refresh_token"]}
    assert len(secrets) == 4


def test_a_renewal_gives_exactly_one_token_and_repeats_a_refresh_token(browser) -> None:
    answer = browser.tokens()
    for part in (answer, answer["other_tokens"][0]):
        renewed = browser.refresh(part["refresh_token"]).json()
        assert renewed["resource_server"] == part["resource_server"]
        assert renewed["scope"] == part["scope"]
        assert renewed["other_tokens"] == []
        assert renewed["refresh_token"] not in {None, part["refresh_token"]}


def test_the_id_token_is_signed_by_the_first_key_and_names_the_person(site, browser) -> None:
    found = claims(site, browser.tokens())
    assert found["sub"] == site.id_of("harper@example.org")
    assert found["aud"] == NATIVE_CLIENT
    assert found["iss"] == site.origin
    assert found["iat"] <= found["nbf"] + 1 <= found["exp"]
    assert found["preferred_username"] == "harper@example.org"


def test_whichever_linked_identity_logs_in_the_person_stays_the_same(site, browser) -> None:
    answer = browser.tokens("mickey97@example.com")
    found = claims(site, answer)
    assert found["sub"] == site.id_of("harper@example.org")
    assert {each["username"] for each in found["identity_set"]} == {"harper@example.org", "mickey97@example.com"}


def claims(site: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """As an official client verifies it: discovery, first key, listed algorithms."""
    discovery = httpx2.get(f"{site.origin}/.well-known/openid-configuration").json()
    key = RSAKey.import_key(httpx2.get(discovery["jwks_uri"]).json()["keys"][0])
    algorithms = discovery["id_token_signing_alg_values_supported"]
    return dict(jwt.decode(answer["id_token"], key, algorithms=algorithms).claims)
