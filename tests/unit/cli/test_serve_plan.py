"""What `muster serve` and its companions understand before anything starts."""

from __future__ import annotations

import logging
from typing import Any

import click
import pytest
from click.testing import CliRunner

from muster.cli.env import exports, is_official, rewritten
from muster.cli.hosting import Line
from muster.cli.main import COMMANDS, muster
from muster.cli.plan import Plan, address, with_credentials, without_credentials
from muster.errors import ConfigInvalid

DEFAULTS: dict[str, Any] = {
    "listen": "127.0.0.1:5000",
    "data": "/srv/data",
    "amqp_listen": "127.0.0.1:5672",
    "database": None,
    "amqp": None,
    "public_url": None,
    "amqp_public": None,
    "amqp_management": None,
}


@pytest.mark.parametrize(("text", "expected"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:5000", ("::1", 5000))])
def test_an_address_is_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert address(text, "--listen") == expected


@pytest.mark.parametrize("text", ["5000", ":5000", "host:", "host:70000", "host:http"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"127\.0\.0\.1:5000"):
        address(text, "--listen")


def test_a_wildcard_needs_the_name_that_clients_use() -> None:
    with pytest.raises(ConfigInvalid, match="--public-url"):
        Plan.of(**{**DEFAULTS, "listen": "0.0.0.0:5000"})
    with pytest.raises(ConfigInvalid, match="--amqp-public"):
        Plan.of(**{**DEFAULTS, "amqp_listen": "0.0.0.0:5672"})


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        Plan.of(**{**DEFAULTS, "amqp": "http://admin:secret@broker"})
    assert "secret" not in refused.value.message()


def test_credentials_replace_whatever_stood_there() -> None:
    url = "amqps://admin:secret@broker:5671/%2F?ssl_options=%7B%7D"
    theirs = with_credentials(url, "user_endpoint-1", "p/w@")
    assert theirs == "amqps://user_endpoint-1:p%2Fw%40@broker:5671/%2F?ssl_options=%7B%7D"
    assert without_credentials(url) == "amqps://broker:5671/%2F?ssl_options=%7B%7D"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_help_of_a_command_starts_with_the_line_that_the_overview_shows(name: str) -> None:
    command = muster.get_command(click.Context(muster), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == COMMANDS[name][2]


def test_an_unknown_command_is_an_error() -> None:
    assert CliRunner().invoke(muster, ["nonsense"]).exit_code == 2


def test_the_official_clients_reach_one_address_only() -> None:
    assert is_official("http://localhost:5000")
    assert is_official("http://127.0.0.1:5000/")
    assert not is_official("https://localhost:5000")
    assert not is_official("http://localhost:5001")


def test_the_auth_url_ends_with_a_slash() -> None:
    assert dict(exports("http://h:1", "http://h:1"))["GLOBUS_SDK_SERVICE_URL_AUTH"] == "http://h:1/"


def test_a_relayed_request_names_the_real_host() -> None:
    head = b"GET /x HTTP/1.1\r\nHost: localhost:5000\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n"
    expected = b"GET /x HTTP/1.1\r\nHost: muster.example.org\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    assert rewritten(head, "muster.example.org") == expected


def test_a_log_record_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("n", logging.INFO, "", 0, "a\nERROR forged %s", ("\x1b[31m",), None)
    line = Line().format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    assert r"a\nERROR forged \x1b[31m" in line
