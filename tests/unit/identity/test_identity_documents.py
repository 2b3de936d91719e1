"""The documents of the identity API, by the shapes that were captured from the official one."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from muster.model.policy import Policy
from muster.wire.rest import COMPUTE_SCOPE, PROJECTS_SCOPE

IDENTITY = {"id", "username", "name", "email", "organization", "identity_provider", "identity_type", "status"}


@pytest.fixture
def harper(browser) -> dict[str, str]:
    other = browser.tokens()["other_tokens"][0]
    return {"Authorization": f"Bearer {other['access_token']}"}


@pytest.fixture
def robot(site) -> dict[str, str]:
    return {"Authorization": f"Bearer {site.robot_tokens(f'openid {PROJECTS_SCOPE}')['access_token']}"}


def get(site, path: str, headers: dict[str, str]) -> Any:
    answer = httpx2.get(site.origin + path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def new_project(site, headers: dict[str, str], **more: Any) -> Any:
    part = {"display_name": "proj one", "contact_email": "harper@example.org", "admin_ids": [], "admin_group_ids": []}
    answer = httpx2.post(f"{site.origin}/v2/api/projects", json={"project": part | more}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["project"]


def test_userinfo_has_the_set_of_linked_identities_the_primary_one_first(site, harper) -> None:
    found = get(site, "/v2/oauth2/userinfo", harper)
    assert found["sub"] == site.id_of("harper@example.org")
    assert found["preferred_username"] == "harper@example.org"
    assert [each["username"] for each in found["identity_set"]] == ["harper@example.org", "mickey97@example.com"]
    for each in found["identity_set"]:
        assert IDENTITY | {"sub", "identity_provider_display_name", "last_authentication"} == set(each)
        assert each["sub"] == each["id"]
        assert each["status"] == "used"
    UUID(found["identity_provider"])


def test_userinfo_without_openid_is_not_permitted(site) -> None:
    token = site.robot_tokens(PROJECTS_SCOPE)["access_token"]
    answer = httpx2.get(f"{site.origin}/v2/oauth2/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


def test_a_compute_token_opens_none_of_these(site) -> None:
    headers = {"Authorization": f"Bearer {site.robot_tokens(COMPUTE_SCOPE)['access_token']}"}
    for path in ("/v2/oauth2/userinfo", "/v2/api/identities", "/v2/api/projects"):
        assert httpx2.get(site.origin + path, headers=headers).status_code == 403
        assert httpx2.get(site.origin + path).status_code == 401


def test_identities_are_found_by_id_and_by_user_name(site, robot) -> None:
    alice = site.id_of("alice@example.org")
    by_id = get(site, f"/v2/api/identities?ids={alice},{uuid4()}", robot)["identities"]
    by_name = get(site, "/v2/api/identities?usernames=Alice@example.org&provision=false", robot)["identities"]
    assert by_id == by_name
    assert set(by_id[0]) == IDENTITY
    assert by_id[0]["username"] == "alice@example.org"


def test_asking_for_an_identity_does_not_make_one(site, robot) -> None:
    found = get(site, "/v2/api/identities?usernames=new@example.org&provision=true", robot)
    assert found == {"identities": []}


def test_too_many_identities_at_a_time_are_refused(site, robot) -> None:
    ids = ",".join(str(uuid4()) for _ in range(101))
    assert httpx2.get(f"{site.origin}/v2/api/identities?ids={ids}", headers=robot).status_code == 422


def test_consents_are_ones_own(site, harper) -> None:
    mine = site.id_of("harper@example.org")
    assert get(site, f"/v2/api/identities/{mine}/consents?all=false", harper) == {"consents": []}
    other = f"{site.origin}/v2/api/identities/{site.id_of('alice@example.org')}/consents"
    assert httpx2.get(other, headers=harper).status_code == 403


def test_a_project_is_seen_by_its_owner_only(site, harper, robot) -> None:
    made = new_project(site, harper)
    assert made["display_name"] == made["project_name"] == "proj one"
    assert made["admin_ids"] == [site.id_of("harper@example.org")]
    assert made in get(site, "/v2/api/projects", harper)["projects"]
    assert made not in get(site, "/v2/api/projects", robot)["projects"]


def test_a_policy_comes_back_as_it_was_sent_and_is_stored(site, robot) -> None:
    project = new_project(site, robot)
    part = {
        "project_id": project["id"],
        "authentication_assurance_timeout": 3600,
        "display_name": "lab people",
        "description": "made by a test",
        "domain_constraints_include": ["*.example.org", "example.org"],
    }
    answer = httpx2.post(f"{site.origin}/v2/api/policies", json={"policy": part}, headers=robot)
    made = answer.json()["policy"]
    assert made.items() >= part.items()
    stored = site.run(site.store.policy(UUID(made["id"])))
    assert isinstance(stored, Policy)
    assert (stored.include, stored.session_age_s) == (("*.example.org", "example.org"), 3600)


@pytest.mark.parametrize(
    ("part", "status"),
    [
        ({"required_mfa": True}, 422),
        ({"domain_constraints_include": ["a b"]}, 422),
        ({"authentication_assurance_timeout": -1}, 422),
        ({"surprise": 1}, 422),
        ({"project_id": str(uuid4())}, 403),
    ],
)
def test_a_policy_that_cannot_be_enforced_is_refused(site, robot, part, status) -> None:
    whole = {"project_id": new_project(site, robot)["id"], "display_name": "x"} | part
    answer = httpx2.post(f"{site.origin}/v2/api/policies", json={"policy": whole}, headers=robot)
    assert answer.status_code == status, answer.text


def test_the_discovery_document_names_routes_that_exist(site) -> None:
    document = httpx2.get(f"{site.origin}/.well-known/openid-configuration").json()
    assert document["issuer"] == site.origin
    paths = {route.path for route in site.authority.routes()}
    endpoints = [value for name, value in document.items() if name.endswith("_endpoint") or name == "jwks_uri"]
    assert len(endpoints) == 7
    assert {value.removeprefix(site.origin) for value in endpoints} <= paths


def test_the_published_key_holds_nothing_private(site) -> None:
    (key,) = httpx2.get(f"{site.origin}/jwk.json").json()["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
