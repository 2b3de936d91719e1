"""Commands of root's that need the network: a child that has become the agent's account carries them out.

The uid-0 process opens no connection and reads no answer of a service; it waits for the child and takes its exit code.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from muster.cli.local import AGENT, LocalEndpoint
from muster.errors import ConfigInvalid, EndpointNotStarted
from muster_root.site import Site, Unusable

# What the agent may need of our environment; nothing else of root's goes to its account.
PASSED = (
    "MUSTER_SERVICE_URL",
    "MUSTER_CLIENT_ID",
    "MUSTER_CLIENT_SECRET",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
)
_TERMINAL = ("LANG", "LC_ALL", "TERM", "TZ", "NO_COLOR")


def is_roots(endpoint: LocalEndpoint) -> bool:
    """Whether this is root with a manager, whose login is the agent's and not root's."""
    return os.geteuid() == 0 and not endpoint.single_user


def agent_directory(directory: Path) -> int:
    """The agent's own directory: ours to make, its account's to use. Opened here, once, and handed down."""
    place = directory / AGENT
    place.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if os.geteuid() != 0:
        return fd
    account = _account(directory)
    if os.fstat(fd).st_uid not in (0, account.pw_uid):
        raise EndpointNotStarted(why=f"{place} belongs to another account; remove it, and log in again")
    os.fchown(fd, account.pw_uid, account.pw_gid)
    return fd


def run_as_agent(
    endpoint: LocalEndpoint, module: str, arguments: Sequence[str], *, ask_for_output: bool = False
) -> tuple[int, str]:
    """Exit code and (when asked for) standard output of `python -m MODULE`, run in the agent's directory."""
    directory = endpoint.directory.resolve()
    place, account = agent_directory(directory), _account(directory)
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", module, *arguments],
        cwd=f"/proc/self/fd/{place}",  # its parent is closed to that account
        env={name: os.environ[name] for name in (*PASSED, *_TERMINAL) if name in os.environ} | {"MUSTER_HOME": "."},
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        umask=0o077,
        start_new_session=True,  # it must not be able to type into root's terminal
        stdout=subprocess.PIPE if ask_for_output else None,
        text=True,
    )
    os.close(place)
    try:
        said, _ = process.communicate()
    except BaseException:  # Ctrl+C reaches us alone: the child has left the terminal's session
        process.kill()
        process.wait()
        raise
    return process.returncode, said or ""


def _account(directory: Path) -> pwd.struct_passwd:
    try:
        user = Site(str(directory)).settings["agent_user"]
    except Unusable as why:
        raise ConfigInvalid.told(str(why)) from None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise EndpointNotStarted(
            why=f"the account {user} does not exist; the part that talks to the network runs as it. Make it with: "
            f"useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin {user}"
        ) from None
