"""`env` and `relay`: the official, unmodified clients find a service of ours."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import click

from muster.cli.refusals import told
from muster.errors import ConfigInvalid, Invalid

OFFICIAL_URL: Final = "http://localhost:5000"  # built into the official clients under the name `local`
_HEAD_LIMIT: Final = 64 * 1024
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MUSTER_DATA",
    help="The data directory of a service on this machine.",
)
@click.option("--url", metavar="URL", default=None, help="The service, when it is elsewhere.")
@told
def env(data: Path | None, url: str | None) -> None:
    """Print what the official clients need to find this service.

    Use it as: eval "$(muster env)"
    """
    service = (url or _served(data) or os.environ.get("MUSTER_SERVICE_URL") or OFFICIAL_URL).rstrip("/")
    if not is_official(service):
        click.echo(f"# The official clients only call {OFFICIAL_URL}: keep `muster relay {service}` running.")
    origin = OFFICIAL_URL if is_official(service) else service
    for name, value in exports(service, origin):
        click.echo(f"export {name}={shlex.quote(value)}")


def exports(service: str, origin: str) -> list[tuple[str, str]]:
    """Names and values. The slash at the end matters: a native login glues a path to it."""
    pairs = [
        ("GLOBUS_SDK_ENVIRONMENT", "local"),
        ("GLOBUS_SDK_SERVICE_URL_AUTH", f"{origin}/"),
        ("MUSTER_SERVICE_URL", service),
    ]
    client, secret = os.environ.get("MUSTER_CLIENT_ID"), os.environ.get("MUSTER_CLIENT_SECRET")
    if client and secret:
        pairs += [("GLOBUS_COMPUTE_CLIENT_ID", client), ("GLOBUS_COMPUTE_CLIENT_SECRET", secret)]
    return pairs


def is_official(url: str) -> bool:
    """Whether the official clients reach it without a relay."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1") and parts.port == 5000


def _served(data: Path | None) -> str | None:
    """What a running `muster serve` wrote about itself."""
    home = data or Path(os.environ.get("MUSTER_HOME") or "~/.muster").expanduser() / "service"
    try:
        return str(json.loads((home / "service.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        if data is not None:
            raise ConfigInvalid(file=str(home / "service.json"), why="no service has run there") from None
        return None


@click.command()
@click.argument("url")
@click.option(
    "--listen", default="127.0.0.1:5000", metavar="HOST:PORT", show_default=True, help="Where, on this machine."
)
@told
def relay(url: str, listen: str) -> None:
    """Listen on this machine and pass everything on to the service at URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise Invalid(why=f"{url}: write http://HOST:PORT or https://HOST, without a path")
    host, _, port = listen.rpartition(":")
    if host not in _LOOPBACK or not port.isdigit():
        raise Invalid(why=f"{listen}: a relay has no door of its own, so it listens on 127.0.0.1 only")
    with suppress(KeyboardInterrupt):
        asyncio.run(Relay(parts).run(host, int(port)))


class Relay:
    """One request a connection: its head gets the service's own host name, the rest goes through as it is."""

    def __init__(self, target: SplitResult) -> None:
        self._host = target.hostname or ""
        self._tls = ssl.create_default_context() if target.scheme == "https" else None
        self._port = target.port or (443 if self._tls else 80)
        self._name = target.netloc.rpartition("@")[2]

    async def run(self, host: str, port: int) -> None:
        try:
            server = await asyncio.start_server(self._pass_on, host, port, limit=_HEAD_LIMIT)
        except OSError as why:
            raise ConfigInvalid(file=f"--listen {host}:{port}", why=f"{why.strerror}; choose another port") from None
        bound = server.sockets[0].getsockname()
        click.echo(f"ready http://{bound[0]}:{bound[1]}")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as why:
            await _refuse(writer, why)
            return
        up_writer.write(rewritten(head, self._name))
        try:
            await asyncio.gather(_pour(reader, up_writer), _pour(up_reader, writer))
        finally:
            up_writer.close()
            writer.close()


def rewritten(head: bytes, name: str) -> bytes:
    """The head of a request for this host, and the last one of its connection."""
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    kept = [line for line in lines if line.partition(":")[0].strip().lower() not in ("host", "connection")]
    return "\r\n".join([first, f"Host: {name}", *kept, "Connection: close", "", ""]).encode("latin-1")


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(_HEAD_LIMIT):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


async def _refuse(writer: asyncio.StreamWriter, why: Exception) -> None:
    if not isinstance(why, asyncio.IncompleteReadError):
        text = json.dumps({"code": "UNAVAILABLE", "message": "The service cannot be reached by the relay."})
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
        writer.write(f"{head}\r\nConnection: close\r\n\r\n{text}".encode())
    with suppress(OSError):
        await writer.drain()
    writer.close()
