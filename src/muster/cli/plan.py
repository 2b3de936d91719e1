"""What `muster serve` was asked for, read and checked before anything starts."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from muster.errors import ConfigInvalid

_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104  # compared with, never bound by default


@dataclass(frozen=True, slots=True)
class Plan:
    """Addresses, the data directory, and the URLs that others are told."""

    host: str
    port: int
    amqp_host: str
    amqp_port: int
    data: Path
    database: str
    amqp: str | None
    public_url: str | None
    amqp_public: str | None
    amqp_management: str | None

    @classmethod
    def of(
        cls,
        *,
        listen: str,
        data: str | None,
        amqp_listen: str,
        database: str | None,
        amqp: str | None,
        public_url: str | None,
        amqp_public: str | None,
        amqp_management: str | None,
    ) -> Plan:
        host, port = address(listen, "--listen")
        amqp_host, amqp_port = address(amqp_listen, "--amqp-listen")
        home = (Path(data) if data else default_data()).expanduser().absolute()
        _check_url(public_url, "--public-url", ("http", "https"))
        _check_url(amqp_public, "--amqp-public", ("amqp", "amqps"))
        _check_url(amqp, "--amqp", ("amqp", "amqps"))
        _check_url(amqp_management, "--amqp-management", ("http", "https"))
        if host in _WILDCARDS and public_url is None:
            raise ConfigInvalid(file=f"--listen {listen}", why="add --public-url: clients cannot connect to a wildcard")
        if amqp is None and amqp_host in _WILDCARDS and amqp_public is None:
            raise ConfigInvalid(
                file=f"--amqp-listen {amqp_listen}", why="add --amqp-public: endpoints cannot connect to a wildcard"
            )
        return cls(
            host=host,
            port=port,
            amqp_host=amqp_host,
            amqp_port=amqp_port,
            data=home,
            database=database or f"sqlite:///{home}/muster.db",
            amqp=amqp,
            public_url=public_url.rstrip("/") if public_url else None,
            amqp_public=amqp_public,
            amqp_management=amqp_management.rstrip("/") if amqp_management else None,
        )

    def claim_data(self) -> IO[str]:
        """The directory, ours alone while the returned file stays open."""
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.data.stat().st_uid
            if owner != os.geteuid():
                why = f"it belongs to uid {owner}; run as that user, or choose another --data"
                raise ConfigInvalid(file=str(self.data), why=why)
            lock = (self.data / "service.lock").open("w")
        except OSError as why:
            fix = "make it writable for this user, or choose another --data"
            raise ConfigInvalid(file=str(self.data), why=f"{why.strerror}; {fix}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            why_not = "another service is running there; stop it, or choose another --data"
            raise ConfigInvalid(file=str(self.data), why=why_not) from None
        return lock


def default_data() -> Path:
    """Where a service keeps everything when nobody says."""
    return (Path(os.environ.get("MUSTER_HOME") or "~/.muster") / "service").expanduser().absolute()


def address(text: str, option: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 address stands in brackets."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65_535 or not host:
        raise ConfigInvalid(file=f"{option} {text}", why="write HOST:PORT, for instance 127.0.0.1:5000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(host: str, port: int, option: str) -> socket.socket:
    """A listening socket, or a sentence that says what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as why:
        raise port_refused(host, port, option, why) from None


def port_refused(host: str, port: int, option: str, why: OSError) -> ConfigInvalid:
    fix = f"stop what listens there, or choose another port with {option}"
    return ConfigInvalid(file=f"{option} {authority(host, port)}", why=f"{os.strerror(why.errno or 0)}; {fix}")


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def with_credentials(url: str, username: str, password: str) -> str:
    """The same place, as somebody else; nothing of whoever stood there before."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(username, safe='')}:{quote(password, safe='')}@{place}").geturl()


def without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _check_url(url: str | None, option: str, schemes: tuple[str, ...]) -> None:
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        raise ConfigInvalid(file=f"{option} {without_credentials(url)}", why=f"write {schemes[0]}://HOST:PORT")
