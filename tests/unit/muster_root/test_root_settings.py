"""The few keys that root reads by itself, and the requests that it answers."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster_root.monitor import Monitor
from muster_root.site import Site, Unusable, open_trusted, scan


def test_plain_and_quoted_values_are_read() -> None:
    text = (
        "amqp_port: 443\n"
        "identity_mapping_config_path: /etc/muster/map.json  # the site's\n"
        "min_uid: 500\n"
        "agent_user: '_agent'\n"
        'user_config_schema_path: "/etc/muster/with blank.json"\n'
        "nested:\n  key: [1, 2]\n"
    )
    values = scan(text, "config.yaml")
    assert values["identity_mapping_config_path"] == "/etc/muster/map.json"
    assert values["min_uid"] == "500"
    assert values["agent_user"] == "_agent"
    assert values["user_config_schema_path"] == "/etc/muster/with blank.json"


def test_defaults_hold_for_missing_empty_and_null_values() -> None:
    assert scan("", "config.yaml") == scan("min_uid:\nagent_user: null\n", "config.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "min_uid: &a 5",
        "min_uid: !!int 5",
        "min_uid: {a: b}",
        "  min_uid: 5",
        '"min_uid": 5',
        "? min_uid",
        "{min_uid: 5}",
        "min_uid: |",
        'agent_user: "a\\u0062"',
        "agent_user: two words",
        "min_uid: 5\nmin_uid: 6",
        "min_uid: 5 agent_user: x",
        "min_uid: -1",
        "min_uid: 0x10",
    ],
)
def test_anything_fancier_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(Unusable, match=r"config\.yaml"):
        scan(line, "config.yaml")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    tmp_path.chmod(0o700)
    (tmp_path / "agent").mkdir()
    (tmp_path / "config.yaml").write_text("identity_mapping_config_path: map.json\n")
    record = {"endpoint_id": "e", "seal_key": "00" * 32, "owners": "o"}
    (tmp_path / "root.json").write_text(json.dumps(record))
    return Site(str(tmp_path))


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/alias").symlink_to("file")
    open_trusted(str(tmp_path / "real/file"), os.getuid()).close()
    for path in ("link/file", "real/alias"):
        with pytest.raises(Unusable, match="without following links"):
            open_trusted(str(tmp_path / path), os.getuid())


def test_a_file_that_is_not_there_is_told_from_one_that_must_not_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_trusted(str(tmp_path / "none"), os.getuid())
    with pytest.raises(Unusable, match="could be changed by others"):
        open_trusted(str(tmp_path), os.getuid())


@pytest.fixture
def monitor(site: Site) -> Iterator[Monitor]:
    log = os.open(site.path("endpoint.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    made = Monitor(site, [], log, console=False)
    yield made
    made.poll.close()
    made.link.close()
    for fd in (log, *made.lifeline, *made.quiet[:2], made.heard, made.last):
        os.close(fd)


def test_two_hundred_malformed_requests_move_nothing(monitor: Monitor) -> None:
    dice = random.Random(7)
    verbs = [b"start", b"stop", b"list", b"START", b"getattr", b"", b"start\0"]
    open_before = len(os.listdir("/proc/self/fd"))
    refused = 0
    while refused < 200:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            noise = dice.randbytes(dice.choice([0, 3, 40, 5000, 90_000]))
            head = dice.choice(verbs) + dice.choice([b"", b" ", b" 1", b" -1\n", b" 1\r\n", b" 1 2\n", b" 1e9\n"])
            lent = [os.dup(0) for _ in range(dice.choice([0, 0, 1, 2, 3]))]
            socket.send_fds(theirs, [head + noise], lent)
            for fd in lent:
                os.close(fd)
            assert monitor.obey(ours) is False
            refused += 1
    assert monitor.children == {}
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_start_without_its_descriptors_is_malformed(monitor: Monitor) -> None:
    for lent in ([], [0], [0, 1, 2]):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            socket.send_fds(theirs, [b"start 1\n" + b"x" * 64], lent)
            assert monitor.obey(ours) is False


def test_nothing_in_the_log_speaks_to_a_terminal(monitor: Monitor, site: Site) -> None:
    monitor.say("\x1b[31mred\x07\u202e" + "x" * 5000 + "\nsecond")
    first, second = Path(site.path("endpoint.log")).read_text().splitlines()
    assert "\x1b" not in first
    assert "\u202e" not in first
    assert len(first) < 2100
    assert second.endswith(" second")
