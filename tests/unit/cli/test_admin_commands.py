"""`muster admin` writes to the store itself, and what it wrote works at once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from muster.cli.admin import admin
from muster.identity.passwords import Passwords
from muster.identity.secret import digest
from muster.store import open_store
from muster.store.contract import Grant

PASSWORD = "correct horse battery"


@pytest.fixture
def run(tmp_path: Path):
    def act(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(admin, [*arguments, "--data", str(tmp_path / "data")], input=stdin)

    return act


@pytest.fixture
def made(run):
    def act(*arguments: str, stdin: str = ""):
        result = run(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return act


def with_store(tmp_path: Path, work):
    async def act():
        store = await open_store(f"sqlite:///{tmp_path}/data/muster.db")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(act())


def test_an_added_person_can_log_in(tmp_path: Path, made) -> None:
    added = made("identity", "add", "harper@example.org", "--name", "Harper", "--password-stdin", stdin=PASSWORD + "\n")
    found = with_store(tmp_path, lambda store: Passwords(store).check("Harper@example.org", PASSWORD, "test"))
    assert str(found) == added["id"]


def test_a_changed_password_replaces_the_old_one(tmp_path: Path, made) -> None:
    made("identity", "add", "harper@example.org", "--password-stdin", stdin=PASSWORD)
    made("identity", "passwd", "harper@example.org", "--password-stdin", stdin="another horse")

    async def check(store):
        passwords = Passwords(store)
        return [await passwords.check("harper@example.org", each, "test") for each in (PASSWORD, "another horse")]

    old, new = with_store(tmp_path, check)
    assert old is None
    assert new is not None


def test_a_new_password_ends_what_the_old_one_opened(tmp_path: Path, made) -> None:
    harper = made("identity", "add", "harper@example.org", "--password-stdin", stdin=PASSWORD)
    open_session = Grant(
        digest=b"s" * 32,
        kind="session",
        client=None,
        identity=UUID(harper["id"]),
        scope="",
        expires_at_s=time.time() + 3600,
        issued_at_s=time.time(),
    )
    with_store(tmp_path, lambda store: store.add_grant(open_session))
    changed = made("identity", "passwd", "harper@example.org", "--password-stdin", stdin="another horse")
    assert changed["ended"] == 1
    assert with_store(tmp_path, lambda store: store.grant(open_session.digest, "session")) is None


def test_without_a_place_it_is_the_one_that_serve_uses(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))
    monkeypatch.delenv("MUSTER_DATA", raising=False)
    add = ["identity", "add", "harper@example.org"]
    refused = CliRunner().invoke(admin, add)
    assert "--data DIR" in refused.output
    assert str(tmp_path / "service") in refused.output
    assert not (tmp_path / "service").exists()
    CliRunner().invoke(admin, [*add, "--data", str(tmp_path / "service")])
    listed = CliRunner().invoke(admin, ["identity", "list"])
    assert "harper@example.org" in listed.output


def test_linked_people_are_listed_as_one(made) -> None:
    made("identity", "add", "harper@example.org")
    made("identity", "add", "mickey97@example.com", "--link-to", "harper@example.org")
    made("identity", "add", "alice@example.org")
    made("identity", "link", "alice@example.org", "mickey97@example.com")
    listed = {each["username"]: set(each["linked_to"]) for each in made("identity", "list")}
    assert listed["harper@example.org"] == {"mickey97@example.com", "alice@example.org"}


def test_a_client_shows_its_secret_once_and_acts_as_the_named_identity(tmp_path: Path, made) -> None:
    harper = made("identity", "add", "harper@example.org")
    new = made("client", "add", "nightly", "--identity", "harper@example.org")
    assert new["identity_id"] == harper["id"]
    (listed,) = made("client", "list")
    assert listed == {
        "client_id": new["client_id"],
        "name": "nightly",
        "username": "harper@example.org",
        "confidential": True,
    }
    (stored,) = with_store(tmp_path, lambda store: store.clients())
    assert stored.secret_sha256 == digest(new["client_secret"])


def test_a_client_without_an_identity_gets_its_own(made) -> None:
    new = made("client", "add", "robot")
    assert new["username"] == f"{new['client_id']}@clients.muster"


@pytest.mark.parametrize(
    "username",
    ["harper", "@example.org", "har per@example.org", "harper@", "a@b@c", "harper\n@example.org", "x@clients.muster"],
)
def test_what_is_no_user_name_is_refused(run, username: str) -> None:
    assert run("identity", "add", username).exit_code == 65


def test_a_taken_name_is_refused_however_it_is_written(run, made) -> None:
    made("identity", "add", "harper@example.org")
    result = run("identity", "add", "Harper@Example.org")
    assert result.exit_code == 69
    assert "taken" in result.output


def test_a_short_password_is_refused_and_nobody_is_added(run, made) -> None:
    assert run("identity", "add", "harper@example.org", "--password-stdin", stdin="short\n").exit_code == 65
    assert made("identity", "list") == []


def test_an_unknown_person_is_named(run) -> None:
    result = run("client", "add", "x", "--identity", "nobody@example.org")
    assert result.exit_code == 69
    assert "nobody@example.org" in result.output


def test_the_data_directory_and_the_database_are_private(tmp_path: Path, run) -> None:
    run("identity", "list")
    for path in (tmp_path / "data", tmp_path / "data" / "muster.db"):
        assert path.stat().st_mode & 0o077 == 0


def test_without_a_place_it_asks_for_one() -> None:
    result = CliRunner().invoke(admin, ["identity", "list"], env={"MUSTER_DATA": None, "MUSTER_DATABASE": None})
    assert result.exit_code == 2
    assert "--data" in result.output
