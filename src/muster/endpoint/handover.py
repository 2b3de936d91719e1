"""What the manager hands over: descriptors, read once, closed, and never inherited by anything we start."""

from __future__ import annotations

import argparse
import hmac
import json
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from grp import getgrgid
from hashlib import sha256
from pathlib import Path
from typing import Any

from muster.config import read_document, read_environment
from muster.endpoint.schema import validate
from muster.endpoint.template import Rendered, Site, render
from muster.endpoint.values import check
from muster.errors import StartFailed
from muster.wire.command import Payload, decode_payload

TEMPLATE, SCHEMA, ENVIRONMENT, MANAGER = (
    "user_config_template.yaml",
    "user_config_schema.json",
    "user_environment.yaml",
    "config.yaml",
)
LIMIT_BYTES = 16 * 1024 * 1024
_NAME = re.compile(r"[^\s./\\'\"\0][^\s/\\'\"\0]{0,127}")


@dataclass(frozen=True, slots=True)
class Handover:
    """The site's files as text, and the payload as bytes that nobody believed yet."""

    name: str
    payload: bytes
    payload_sha256: str
    template: str
    schema: str
    environment: str
    manager: str
    mapped: Mapping[str, Any]
    lifeline: int | None

    @classmethod
    def take(cls, arguments: Sequence[str]) -> Handover:
        """Read every descriptor that the command line names, and the payload on descriptor 0."""
        given = _parser().parse_args(arguments)
        if not _NAME.fullmatch(given.name):
            raise StartFailed(why=f"{given.name!r} cannot be the name of an endpoint")
        if given.lifeline_fd is not None:
            os.set_inheritable(given.lifeline_fd, False)
        payload = _read(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return cls(
            name=given.name,
            payload=payload,
            payload_sha256=given.payload_sha256,
            template=_take(given.template_fd, TEMPLATE),
            schema=_take(given.schema_fd, SCHEMA),
            environment=_take(given.environment_fd, ENVIRONMENT),
            manager=_take(given.manager_config_fd, MANAGER),
            mapped=_mapped(given.mapped),
            lifeline=given.lifeline_fd,
        )

    def believed(self) -> Payload:
        """The payload, once its digest is the one that the sealed order named."""
        if not hmac.compare_digest(sha256(self.payload).hexdigest(), self.payload_sha256.lower()):
            raise StartFailed(why="the payload is not the one that was ordered (its SHA-256 differs)")
        return decode_payload(self.payload)

    def export_environment(self) -> None:
        """Put the site's variables into this process, for everything it starts."""
        os.environ.update(read_environment(self.environment, ENVIRONMENT))

    def rendered(self, payload: Payload) -> Rendered:
        """The configuration: the values checked, then put into the template."""
        check(payload.user_opts)
        check({"runtime": payload.user_runtime}, source="user_runtime")
        validate(payload.user_opts, self.schema, file=SCHEMA)
        if not self.template.strip():
            raise StartFailed(why=f"the site's {TEMPLATE} is missing or empty")
        parent = read_document(self.manager, MANAGER).data
        site = Site(parent, self._identity(), dict(os.environ), _template_directory(parent))
        return render(self.template, payload.user_opts, payload.user_runtime, site, file=TEMPLATE)

    def _identity(self) -> Mapping[str, Any]:
        if "local" in self.mapped or "mapped_identity" not in self.template:
            return self.mapped
        return {**self.mapped, "local": _local_account()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster.endpoint", description="Started by a manager, not by hand.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--payload-sha256", required=True)
    for name in ("template", "schema", "environment", "manager-config", "lifeline"):
        parser.add_argument(f"--{name}-fd", type=int)
    parser.add_argument("--mapped", default="{}")
    return parser


def _take(file: int | None, name: str) -> str:
    if file is None:
        return ""
    try:
        return _read(file).decode()
    except UnicodeDecodeError:
        raise StartFailed(why=f"the site's {name} is not UTF-8 text") from None
    finally:
        os.close(file)


def _read(file: int) -> bytes:
    """All of it. Files are read from their start: whoever wrote one may have left the position at its end."""
    parts: list[bytes] = []
    size = 0
    try:
        while part := _part(file, size):
            parts.append(part)
            size += len(part)
            if size > LIMIT_BYTES:
                raise StartFailed(why=f"descriptor {file} holds more than {LIMIT_BYTES} bytes")
    except OSError as why:
        raise StartFailed(why=f"descriptor {file} cannot be read ({why.strerror})") from None
    return b"".join(parts)


def _part(file: int, at: int) -> bytes:
    try:
        return os.pread(file, 1 << 20, at)
    except OSError:
        return os.read(file, 1 << 20)  # a pipe


def _mapped(text: str) -> Mapping[str, Any]:
    try:
        mapped = json.loads(text)
    except ValueError:
        mapped = None
    if not isinstance(mapped, dict):
        raise StartFailed(why="--mapped is not a JSON object")
    return mapped


def _template_directory(parent: Mapping[str, Any]) -> Path | None:
    named = parent.get("user_config_template_path")
    return Path(named).parent if isinstance(named, str) and named.startswith("/") else None


def _local_account() -> dict[str, Any]:
    account = pwd.getpwuid(os.getuid())
    names = []
    for group in os.getgroups():
        try:
            names.append(getgrgid(group).gr_name)
        except KeyError:
            names.append(str(group))
    return {
        "uname": account.pw_name,
        "uid": account.pw_uid,
        "gid": account.pw_gid,
        "gecos": account.pw_gecos,
        "shell": account.pw_shell,
        "dir": account.pw_dir,
        "groups": names,
    }
