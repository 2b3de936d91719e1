from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from uuid import uuid4

import pytest

from muster.errors import Conflict, Invalid, NotFound
from muster.model.identity import Identity
from muster.model.policy import Policy
from muster.store.contract import Grant, OAuthClient


def grant(kind: str = "access", **changes: object) -> Grant:
    fresh = Grant(uuid4().bytes * 2, kind, uuid4(), uuid4(), "openid email", 2000.0, 1000.0, uuid4(), 999.0, '{"a": 1}')
    return replace(fresh, **changes)


async def test_an_identity_comes_back_as_it_went_in(store, harper, alice):
    await store.add_identity(harper)
    await store.add_identity(alice)
    assert await store.identity(harper.id) == harper
    assert await store.identity(alice.id) == alice


async def test_an_unknown_identity_is_none(store):
    assert await store.identity(uuid4()) is None


async def test_a_username_is_taken_in_any_spelling(store, harper):
    await store.add_identity(harper)
    with pytest.raises(Conflict):
        await store.add_identity(Identity(uuid4(), "HARPER@Example.org"))


async def test_an_identity_id_is_given_once(store, harper):
    await store.add_identity(harper)
    with pytest.raises(Conflict):
        await store.add_identity(replace(harper, username="mickey97@example.org"))


async def test_of_many_who_race_for_a_username_one_gets_it(store):
    racers = [store.add_identity(Identity(uuid4(), "Mickey97@example.org")) for _ in range(20)]
    ends = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(end, Identity) for end in ends) == 1
    assert sum(isinstance(end, Conflict) for end in ends) == 19


async def test_a_password_is_found_under_any_spelling_of_the_name(store, harper):
    await store.add_identity(harper, "hash one")
    assert await store.password_hash("Harper@EXAMPLE.org") == (harper.id, "hash one")
    await store.set_password(harper.id, "hash two")
    assert await store.password_hash(harper.username) == (harper.id, "hash two")


async def test_nobody_has_a_password_by_default(store, harper):
    await store.add_identity(harper)
    assert await store.password_hash(harper.username) is None
    assert await store.password_hash("alice@example.com") is None


async def test_a_password_for_nobody_is_refused(store):
    with pytest.raises(NotFound):
        await store.set_password(uuid4(), "hash")


async def test_identities_are_found_by_id_and_by_name(store, harper, alice):
    await store.add_identity(harper)
    await store.add_identity(alice)
    assert await store.identities([harper.id, uuid4()], ["ALICE@example.com"]) == [alice, harper]
    assert await store.identities([]) == []
    assert await store.all_identities() == [alice, harper]
    assert await store.all_identities(limit=1) == [alice]


async def test_linking_joins_whole_sets(store):
    people = [await store.add_identity(Identity(uuid4(), f"harper{n}@example.org")) for n in range(5)]
    for one, other in ((0, 1), (2, 3), (1, 3)):
        await store.link_identities(people[one].id, people[other].id)
    assert await store.linked_to(people[0].id) == people[1:4]
    assert await store.linked_to(people[3].id) == people[:3]
    assert await store.linked_to(people[4].id) == []


async def test_racing_links_lose_nobody(store):
    people = [await store.add_identity(Identity(uuid4(), f"harper{n:02}@example.org")) for n in range(12)]
    await asyncio.gather(*(store.link_identities(one.id, other.id) for one, other in pairwise(people)))
    assert await store.linked_to(people[0].id) == people[1:]


async def test_linking_a_stranger_is_refused(store, harper):
    await store.add_identity(harper)
    with pytest.raises(NotFound):
        await store.link_identities(harper.id, uuid4())


async def test_an_authentication_is_remembered(store, harper):
    await store.add_identity(harper)
    await store.touch_authentication(harper.id, 1_800_000_000)
    assert await store.identity(harper.id) == replace(harper, last_authentication_s=1_800_000_000)


async def test_clients_come_back_as_they_went_in(store, harper):
    await store.add_identity(harper)
    public = OAuthClient(uuid4(), "A laptop", redirect_uris=("http://localhost/a", "http://localhost/b"))
    secret = OAuthClient(uuid4(), "B robot", harper.id, b"\x00" * 32)
    await store.add_client(public)
    await store.add_client(secret)
    assert await store.client(secret.id) == secret
    assert await store.clients() == [public, secret]
    assert await store.client(uuid4()) is None
    with pytest.raises(Conflict):
        await store.add_client(public)


async def test_a_grant_is_found_by_digest_and_kind_even_when_expired(store):
    one, other = grant(expires_at_s=1.0), grant("refresh", client=None, identity=None, family=None)
    await store.add_grant(one, other)
    assert await store.grant(one.digest, "access") == one
    assert await store.grant(other.digest, "refresh") == other
    assert await store.grant(one.digest, "refresh") is None


async def test_a_grant_is_taken_once_even_by_racing_callers(store):
    code = grant("code")
    await store.add_grant(code)
    taken = await asyncio.gather(*(store.take_grant(code.digest, "code") for _ in range(20)))
    assert [one for one in taken if one] == [code]
    assert await store.grant(code.digest, "code") is None


async def test_a_grant_of_another_kind_is_not_taken(store):
    code = grant("code")
    await store.add_grant(code)
    assert await store.take_grant(code.digest, "access") is None
    assert await store.grant(code.digest, "code") == code


async def test_a_device_code_is_found_by_what_its_user_types_and_can_be_approved(store):
    device = grant("device", identity=None, data=json.dumps({"user_code": "WDJBMJHT", "status": "waiting"}))
    await store.add_grant(device)
    assert await store.device_by_user_code("WDJBMJHT") == device
    approved = replace(device, identity=uuid4(), data=json.dumps({"user_code": "WDJBMJHT", "status": "approved"}))
    await store.replace_grant(approved)
    assert await store.device_by_user_code("WDJBMJHT") == approved
    assert await store.device_by_user_code("XXXXXXXX") is None


async def test_a_used_up_grant_cannot_be_replaced(store):
    with pytest.raises(NotFound):
        await store.replace_grant(grant("device"))


async def test_revoking_one_login_leaves_the_others(store):
    family = uuid4()
    mine, twin, other = grant(family=family), grant("refresh", family=family), grant()
    await store.add_grant(mine, twin, other)
    await store.revoke_family(family)
    assert await store.grant(mine.digest, "access") is None
    assert await store.grant(twin.digest, "refresh") is None
    assert await store.grant(other.digest, "access") == other


async def test_old_grants_are_purged(store):
    old, young = grant(expires_at_s=100.0), grant(expires_at_s=300.0)
    await store.add_grant(old, young)
    assert await store.purge_grants(200.0) == 1
    assert await store.grant(old.digest, "access") is None
    assert await store.grant(young.digest, "access") == young


async def test_projects_are_listed_by_owner(store, harper, alice):
    mine, hers = uuid4(), uuid4()
    await store.add_project(mine, harper.id, '{"name": "mine"}')
    await store.add_project(hers, alice.id, '{"name": "hers"}')
    assert await store.projects([harper.id]) == [(mine, '{"name": "mine"}')]
    assert len(await store.projects([harper.id, alice.id])) == 2


async def test_policies_come_back_as_they_went_in(store, harper):
    project = uuid4()
    await store.add_project(project, harper.id, "{}")
    strict = Policy(uuid4(), project, "strict", "Staff only", ("*.example.org",), ("evil.example.org",), 3600, True)
    loose = Policy(uuid4(), project, "loose")
    nobody = Policy(uuid4(), project, "nobody", include=())
    for policy in (strict, loose, nobody):
        await store.add_policy(policy)
        assert await store.policy(policy.id) == policy
    assert await store.policy(uuid4()) is None


async def test_a_policy_needs_its_project(store):
    with pytest.raises(Conflict):
        await store.add_policy(Policy(uuid4(), uuid4(), "loose"))


@pytest.mark.parametrize("name", ["half a \ud800 pair"])
async def test_a_name_that_no_database_can_hold_is_refused_with_a_reason(store, harper, name):
    with pytest.raises(Invalid):
        await store.add_identity(replace(harper, name=name))


async def test_revoking_an_identity_takes_all_its_grants_and_nobody_elses(store, harper, alice):
    mine = [grant(kind, identity=harper.id) for kind in ("session", "access", "refresh", "code")]
    hers, nobodys = grant(identity=alice.id), grant("device", identity=None)
    await store.add_grant(*mine, hers, nobodys)
    assert await store.revoke_identity(harper.id) == len(mine)
    assert [await store.grant(one.digest, one.kind) for one in mine] == [None] * len(mine)
    assert await store.grant(hers.digest, hers.kind) == hers
    assert await store.grant(nobodys.digest, nobodys.kind) == nobodys
    assert await store.revoke_identity(harper.id) == 0
