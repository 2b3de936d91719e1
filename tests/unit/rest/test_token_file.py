"""The file of tokens."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from muster.errors import ConfigInvalid
from muster.rest.token_file import KeptToken, ServiceTokens, TokenFile


def tokens(name: str) -> ServiceTokens:
    now_s = time.time()
    return ServiceTokens(
        client_id=name,
        servers={"x": KeptToken(access_token=name, scope="", expires_at_s=now_s, renewed_at_s=now_s)},
    )


def test_each_service_has_its_own_tokens(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    with file.locked():
        file.write("http://one", tokens("one"))
        file.write("http://two", tokens("two"))
        file.write("http://one", None)
    assert file.read("http://one") is None
    assert file.read("http://two").client_id == "two"


def test_nothing_but_the_file_and_its_lock_is_left_and_both_are_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        file = TokenFile(tmp_path / "home")
        with file.locked():
            file.write("http://one", tokens("one"))
    finally:
        os.umask(previous)
    assert {entry.name for entry in (tmp_path / "home").iterdir()} == {"tokens.json", "tokens.lock"}
    assert (tmp_path / "home").stat().st_mode & 0o077 == 0
    for entry in (tmp_path / "home").iterdir():
        assert entry.stat().st_mode & 0o077 == 0


def test_a_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    with file.locked():
        file.write("http://one", tokens("one"))
    file.path.chmod(0o640)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        file.read("http://one")


def test_a_broken_file_says_what_to_do(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    file.path.touch(mode=0o600)
    file.path.write_text("{")
    with pytest.raises(ConfigInvalid, match="log in"):
        file.read("http://one")
