"""A person at a terminal logs in, works, is renewed, and logs out: our client against our provider."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli.login import login, logout, whoami
from muster.errors import LoginNeeded, NotPermitted, Unauthenticated
from muster.rest import Rest
from muster.rest.login import Login
from muster.rest.token_file import TokenFile
from muster.rest.tokens import ClientCredentials, StoredTokens
from muster.wire.rest import AUTH_SERVER, COMPUTE_SERVER

PASSWORD = "correct horse battery"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site) -> Path:
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))
    monkeypatch.setenv("MUSTER_SERVICE_URL", site.origin)
    monkeypatch.delenv("MUSTER_CLIENT_ID", raising=False)
    monkeypatch.delenv("MUSTER_CLIENT_SECRET", raising=False)
    return tmp_path


@pytest.fixture
def log_in(site, browser, home):
    """Does what a person does with the printed address."""

    def act() -> list[str]:
        lines: list[str] = []

        def read() -> str:
            page = browser.open(lines[2])
            answer = browser.submit(page, "login", username="harper@example.org", password=PASSWORD)
            return browser.open(answer.headers["location"]).text.split('<pre id="code">')[1].split("<")[0] + "\n"

        Login(site.origin, tell=lines.append).with_code(read)
        return lines

    return act


def age(home: Path, origin: str) -> None:
    """Make every kept token look old."""
    kept = TokenFile(home).read(origin)
    document = json.loads((home / "tokens.json").read_text())
    for server in kept.servers:
        document[origin]["servers"][server] |= {"expires_at_s": time.time() - 1, "renewed_at_s": time.time() - 3600}
    (home / "tokens.json").write_text(json.dumps(document))


def test_the_terminal_shows_the_address_between_two_lines(log_in) -> None:
    lines = log_in()
    assert lines[0].startswith("Please authenticate")
    assert lines[0].endswith("here:")
    assert set(lines[1]) == set(lines[3]) == {"-"}
    assert "code_challenge_method=S256" in lines[2]


def test_after_the_login_rest_knows_who_it_is(site, log_in) -> None:
    log_in()
    assert Rest().call("GET", "/v2/oauth2/userinfo")["preferred_username"] == "harper@example.org"


def test_the_token_file_is_private(log_in, home) -> None:
    log_in()
    assert (home / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_an_old_token_is_renewed_and_the_new_refresh_token_is_kept(site, log_in, home) -> None:
    log_in()
    before = StoredTokens(site.origin).token(COMPUTE_SERVER)
    for _ in range(3):
        age(home, site.origin)
        after = StoredTokens(site.origin).token(COMPUTE_SERVER)
        assert after != before
        before = after
    assert site.run(site.authority.authenticate(f"Bearer {after}", COMPUTE_SERVER))


def test_threads_that_are_refused_together_renew_once(site, log_in, home) -> None:
    log_in()
    age(home, site.origin)
    tokens, found = StoredTokens(site.origin), set()
    threads = [threading.Thread(target=lambda: found.add(tokens.token(COMPUTE_SERVER, force=True))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 1


RENEW = """
import sys
from muster.rest.tokens import StoredTokens
print(StoredTokens(sys.argv[1]).token("funcx_service", force=True))
"""


def test_processes_that_are_refused_together_renew_once(site, log_in, home) -> None:
    log_in()
    age(home, site.origin)
    command = [sys.executable, "-c", RENEW, site.origin]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert len(found) == 1
    assert site.run(site.authority.authenticate(f"Bearer {found.pop()}", COMPUTE_SERVER))


def test_a_revoked_access_token_is_renewed_once_and_the_call_succeeds(site, log_in, home) -> None:
    log_in()
    tokens = StoredTokens(site.origin)
    document = json.loads((home / "tokens.json").read_text())
    document[site.origin]["servers"][AUTH_SERVER] |= {"access_token": "mt_unknown", "renewed_at_s": 0}
    (home / "tokens.json").write_text(json.dumps(document))
    assert Rest(site.origin, tokens).call("GET", "/v2/oauth2/userinfo")["sub"]


def test_after_logout_every_token_is_void_and_forgotten(site, log_in, home) -> None:
    log_in()
    kept = TokenFile(home).read(site.origin)
    assert Login(site.origin).logout()
    assert TokenFile(home).read(site.origin) is None
    for server, token in kept.servers.items():
        with pytest.raises(Unauthenticated):
            site.run(site.authority.authenticate(f"Bearer {token.access_token}", server))
    assert not Login(site.origin).logout()
    with pytest.raises(LoginNeeded, match="muster login"):
        StoredTokens(site.origin).token(COMPUTE_SERVER)


def test_the_end_of_input_is_an_error_at_once(home) -> None:
    result = CliRunner().invoke(login, input="")
    assert result.exit_code == 77
    assert "Enter the resulting Authorization Code here: " in result.output
    assert "input ended" in result.output


def test_a_device_login_waits_for_the_approval(site, browser, home) -> None:
    lines: list[str] = []

    def wait(interval_s: float) -> None:
        assert interval_s >= 5
        page = browser.open(f"/device?user_code={lines[-1].rpartition(' ')[2]}")
        browser.submit(page, "login", username="alice@example.org", password=PASSWORD)

    Login(site.origin, tell=lines.append).with_device(wait)
    assert Rest().call("GET", "/v2/oauth2/userinfo")["preferred_username"] == "alice@example.org"


def test_the_commands_say_who_one_is_and_when_one_is_nobody(site, log_in, home) -> None:
    runner = CliRunner()
    assert runner.invoke(whoami).exit_code == 77
    log_in()
    shown = runner.invoke(whoami, ["--linked-identities"])
    assert [line.split()[0] for line in shown.output.splitlines()] == ["harper@example.org", "mickey97@example.com"]
    assert json.loads(runner.invoke(whoami, ["--json"]).output)["preferred_username"] == "harper@example.org"
    assert "already" in runner.invoke(login).output
    assert "logged out" in runner.invoke(logout).output
    assert "not logged in" in runner.invoke(logout).output


def test_a_login_that_a_new_password_ended_can_be_made_again_without_force(site, log_in, home) -> None:
    log_in()
    site.run(site.people.set_password("harper@example.org", PASSWORD))
    site.authority._bearer.forget(person=site.run(site.people.find("harper@example.org")))  # else after five seconds
    assert CliRunner().invoke(whoami).exit_code == 77
    again = CliRunner().invoke(login, input="")
    assert "already" not in again.output
    assert "Please authenticate" in again.output


def test_a_service_account_needs_its_secret_only(site, home, monkeypatch: pytest.MonkeyPatch) -> None:
    client_id, secret = site.robot_pair
    monkeypatch.setenv("MUSTER_CLIENT_ID", client_id)
    monkeypatch.setenv("MUSTER_CLIENT_SECRET", secret)
    found = Rest().call("GET", "/v2/oauth2/userinfo")
    assert found["preferred_username"] == f"{client_id}@clients.muster"


def test_a_wrong_secret_says_which_client_it_is_about(site) -> None:
    tokens = ClientCredentials(site.origin, str(site.robot.client_id), "wrong")
    with pytest.raises(LoginNeeded, match=str(site.robot.client_id)):
        tokens.token(COMPUTE_SERVER)


def test_a_refusal_keeps_its_class_and_its_sentence(site, log_in) -> None:
    log_in()
    other = site.id_of("alice@example.org")
    with pytest.raises(NotPermitted) as refused:
        Rest().call("GET", f"/v2/api/identities/{other}/consents")
    assert refused.value.message() == "You may not do that: these are another person's consents"
