"""The official packages, unmodified, against ours: every pair, single-user and multi-user, with real accounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.stage import NEWEST, OLDER, SCHEMA, TEMPLATE, Both
from muster.testing.processes import BIN

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.slow]

ALL = ["submit", "map", "exception", "client", "reload", "shell"]
TWO = {"max_workers": 2}
SINGLE = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n"


@pytest.fixture(scope="session", params=[NEWEST, OLDER])
def programs(request: pytest.FixtureRequest, official: dict[str, Path]) -> Path:
    return official[request.param]


@pytest.fixture(scope="session")
def our_multi_user(site: Both) -> str:
    import json

    directory = site.configure("multi", "mickey97", "--multi-user")
    site.write(directory / "user_config_schema.json", json.dumps(SCHEMA))
    site.write(directory / "user_config_template.yaml", TEMPLATE)
    from muster.testing.site import MAPPING

    site.write(directory / "example_identity_mapping_config.json", json.dumps(MAPPING))
    return site.start(directory, "mickey97").id


@pytest.fixture(scope="session")
def our_single_user(site: Both) -> str:
    return site.single("single", "harper", SINGLE, account="harper").id


@pytest.fixture(scope="session")
def official_multi_user(site: Both, programs: Path) -> str:
    return site.official_endpoint(f"multi-{programs.parent.name}", programs, None)


@pytest.fixture(scope="session")
def official_personal(site: Both, programs: Path) -> str:
    return site.official_endpoint(f"personal-{programs.parent.name}", programs, "harper")


def uid_of(site: Both, person: str) -> int:
    assert site.processes.space is not None
    return site.processes.space.people[person].uid


def test_official_sdk_with_our_manager(site: Both, programs: Path, our_multi_user: str) -> None:
    for person, cases in (("harper", [*ALL, "config", "refused"]), ("alice", ["submit", "exception"])):
        told = site.cases(person, programs, "globus_compute_sdk", our_multi_user, TWO, cases)
        assert told["submit"]["uid"] == uid_of(site, person)


def test_official_sdk_with_our_single_user_endpoint(site: Both, programs: Path, our_single_user: str) -> None:
    told = site.cases("harper", programs, "globus_compute_sdk", our_single_user, {}, ALL)
    assert told["submit"]["uid"] == uid_of(site, "harper")


def test_our_sdk_with_the_official_multi_user_endpoint(site: Both, official_multi_user: str) -> None:
    for person, cases in (("harper", [*ALL, "config"]), ("alice", ["submit", "exception"])):
        told = site.cases(person, BIN, "muster", official_multi_user, TWO, cases)
        assert told["submit"]["uid"] == uid_of(site, person)


def test_our_sdk_with_the_official_personal_endpoint(site: Both, official_personal: str) -> None:
    told = site.cases("harper", BIN, "muster", official_personal, TWO, ALL)
    assert told["submit"]["uid"] == uid_of(site, "harper")


def test_official_sdk_with_the_official_multi_user_endpoint(
    site: Both, programs: Path, official_multi_user: str
) -> None:
    told = site.cases("alice", programs, "globus_compute_sdk", official_multi_user, TWO, ALL)
    assert told["submit"]["uid"] == uid_of(site, "alice")


def test_official_sdk_with_the_official_personal_endpoint(site: Both, programs: Path, official_personal: str) -> None:
    told = site.cases("harper", programs, "globus_compute_sdk", official_personal, TWO, ALL)
    assert told["submit"]["uid"] == uid_of(site, "harper")


def test_our_sdk_with_our_manager(site: Both, our_multi_user: str) -> None:
    told = site.cases("harper", BIN, "muster", our_multi_user, TWO, [*ALL, "config", "refused"])
    assert told["submit"]["uid"] == uid_of(site, "harper")
