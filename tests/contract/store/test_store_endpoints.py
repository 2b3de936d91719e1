from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from muster.errors import Conflict, NotPermitted
from muster.model.account import AccountKind, BrokerAccount
from muster.model.endpoint import Endpoint, EndpointKind, UserEndpoint, UserEndpointKey
from muster.model.function import Function


@pytest.fixture
def site(harper, alice):
    return Endpoint(
        uuid4(),
        harper.id,
        "site",
        EndpointKind.MANAGER,
        "The site",
        public=True,
        multi_user=True,
        allowed_functions=(uuid4(), uuid4()),
        policy=uuid4(),
        admins=(alice.id, uuid4()),
        metadata='{"hostname": "login1"}',
        seal_key=b"k" * 32,
        bundles=True,
        locked_until_s=5.0,
        created_at_s=1000.0,
    )


@pytest.fixture
def key(site):
    return UserEndpointKey.of(site.id, uuid4(), {"account": "abc"})


async def test_a_function_comes_back_until_it_is_deleted(store, harper):
    full = Function(uuid4(), harper.id, "f", "1\nx\0y\ud800", "says hello", True, uuid4(), '{"python": "3.11"}', 7.0)
    plain = Function(uuid4(), harper.id, "g", "1\nx", created_at_s=8.0)
    await store.add_function(full)
    await store.add_function(plain)
    assert await store.function(full.id) == full
    assert await store.function(plain.id) == plain
    await store.delete_function(full.id)
    assert await store.function(full.id) is None
    assert await store.function(plain.id) == plain


async def test_a_function_id_is_given_once(store, harper):
    function = Function(uuid4(), harper.id, "f", "code")
    await store.add_function(function)
    with pytest.raises(Conflict):
        await store.add_function(function)


async def test_an_endpoint_comes_back_as_it_went_in(store, site, harper):
    plain = Endpoint(uuid4(), harper.id, "laptop", EndpointKind.SINGLE, created_at_s=2000.0)
    closed = replace(plain, id=uuid4(), allowed_functions=(), created_at_s=3000.0)
    for endpoint in (site, plain, closed):
        await store.put_endpoint(endpoint)
        assert await store.endpoint(endpoint.id) == endpoint
    assert await store.endpoint(uuid4()) is None


async def test_its_owner_replaces_an_endpoint_but_not_its_age_nor_its_lock(store, site):
    await store.put_endpoint(site)
    again = replace(site, name="renamed", admins=(uuid4(),), policy=None, locked_until_s=0.0, created_at_s=9000.0)
    await store.put_endpoint(again)
    assert await store.endpoint(site.id) == replace(again, locked_until_s=5.0, created_at_s=1000.0)


async def test_an_endpoint_id_of_someone_else_is_a_conflict(store, site):
    await store.put_endpoint(site)
    with pytest.raises(Conflict):
        await store.put_endpoint(replace(site, owner=uuid4()))
    assert await store.endpoint(site.id) == site


async def test_of_racing_owners_one_gets_the_id(store, site):
    claims = [store.put_endpoint(replace(site, owner=uuid4(), name=f"e{n}")) for n in range(10)]
    ends = await asyncio.gather(*claims, return_exceptions=True)
    assert ends.count(None) == 1
    assert sum(isinstance(end, Conflict) for end in ends) == 9


async def test_endpoints_are_listed_for_owners_and_administrators_oldest_first(store, site, harper, alice):
    hers = Endpoint(uuid4(), alice.id, "hers", EndpointKind.SINGLE, created_at_s=10.0)
    other = Endpoint(uuid4(), uuid4(), "other", EndpointKind.SINGLE, created_at_s=20.0)
    for endpoint in (site, hers, other):
        await store.put_endpoint(endpoint)
    assert await store.endpoints([harper.id]) == [site]
    assert await store.endpoints([alice.id]) == [hers, site]
    assert await store.endpoints([]) == []
    assert await store.all_endpoints() == [hers, other, site]


async def test_a_deleted_endpoint_is_gone_but_its_id_stays_its_owners(store, site):
    await store.put_endpoint(site)
    await store.delete_endpoint(site.id)
    assert await store.endpoint(site.id) is None
    assert await store.all_endpoints() == []
    with pytest.raises(Conflict):
        await store.put_endpoint(replace(site, owner=uuid4()))
    await store.put_endpoint(site)
    assert await store.endpoint(site.id) == site


async def test_a_lock_is_set_and_lifted(store, site):
    await store.put_endpoint(site)
    for until_s in (1e9, 0.0):
        await store.lock_endpoint(site.id, until_s)
        assert (await store.endpoint(site.id)).locked_until_s == until_s


async def test_the_last_report_is_kept_and_a_late_one_ignored(store):
    id_ = uuid4()
    assert await store.report(id_) is None
    await store.save_report(id_, '{"n": 1}', 100.0)
    await store.save_report(id_, '{"n": 2}', 200.0)
    await store.save_report(id_, '{"late": true}', 150.0)
    assert await store.report(id_) == ('{"n": 2}', 200.0)


async def test_a_claimed_user_endpoint_is_found_again_with_the_last_runtime(store, site, key):
    await store.put_endpoint(site)
    first = await store.claim_user_endpoint(key, '{"account": "abc"}', '{"v": 1}')
    assert first == UserEndpoint(key, '{"account": "abc"}', '{"v": 1}', False, first.created_at_s)
    assert await store.claim_user_endpoint(key, '{"account": "abc"}', '{"v": 1}') == first
    second = await store.claim_user_endpoint(key, '{"account": "abc"}', '{"v": 2}')
    assert second == replace(first, runtime='{"v": 2}')
    assert await store.user_endpoint(key.id) == second
    assert await store.user_endpoints(site.id) == [second]


async def test_a_user_endpoint_is_never_handed_to_someone_else(store, site, key):
    await store.put_endpoint(site)
    mine = await store.claim_user_endpoint(key, "{}", "{}")

    class Stolen(UserEndpointKey):
        id = key.id

    with pytest.raises(NotPermitted):
        await store.claim_user_endpoint(Stolen(site.id, uuid4(), key.config), "{}", '{"v": 2}')
    assert await store.user_endpoint(key.id) == mine


async def test_racing_claims_of_one_person_all_get_the_same_user_endpoint(store, site, key):
    await store.put_endpoint(site)
    claims = await asyncio.gather(*(store.claim_user_endpoint(key, "{}", "{}") for _ in range(20)))
    assert len(set(claims)) == 1


async def test_bundles_are_remembered(store, site, key):
    await store.put_endpoint(site)
    await store.claim_user_endpoint(key, "{}", "{}")
    await store.set_bundles(key.id, True)
    assert (await store.user_endpoint(key.id)).bundles
    assert (await store.claim_user_endpoint(key, "{}", '{"v": 3}')).bundles


def account(name: str, **changes: object) -> BrokerAccount:
    return replace(BrokerAccount(name, b"p" * 32, AccountKind.MANAGER, uuid4(), 100.0), **changes)


async def test_an_account_gets_a_new_password_but_never_another_holder(store):
    mine = account("manager-1")
    await store.put_account(mine)
    renewed = replace(mine, password_sha256=b"q" * 32, expires_at_s=None)
    await store.put_account(renewed)
    assert await store.account("manager-1") == renewed
    with pytest.raises(Conflict):
        await store.put_account(replace(mine, subject=uuid4()))
    assert await store.account("manager-1") == renewed
    assert await store.account("manager-2") is None


async def test_revoked_accounts_are_named_so_that_they_can_be_cut_off(store):
    subject = uuid4()
    for name in ("a", "b", "c"):
        await store.put_account(account(name, subject=subject))
    await store.put_account(account("other"))
    assert sorted(await store.revoke_accounts(subject, "b")) == ["a", "c"]
    assert await store.revoke_accounts(subject) == ["b"]
    assert await store.revoke_accounts(subject) == []
    assert await store.account("other") is not None


async def test_expired_accounts_are_purged_and_the_everlasting_stay(store):
    await store.put_account(account("old", expires_at_s=10.0))
    await store.put_account(account("young", expires_at_s=30.0))
    await store.put_account(account("everlasting", expires_at_s=None))
    assert await store.purge_accounts(20.0) == ["old"]
    assert await store.account("young")
    assert await store.account("everlasting")


async def test_a_setting_keeps_its_first_value_even_among_racers(store):
    values = await asyncio.gather(*(store.setting("signing key", f"key {n}".encode()) for n in range(20)))
    assert len(set(values)) == 1
    assert await store.setting("signing key", b"late") == values[0]
