"""Taking an endpoint off the service's books, as the account whose login it was registered with."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from muster.cli.local import AGENT, LocalEndpoint
from muster.errors import MusterError, NotFound, Outage


def deregister(endpoint: LocalEndpoint, *, force: bool) -> None:
    """The error that kept the service from being told; with `force` it is only said."""
    id_ = endpoint.endpoint_id
    if id_ is None:
        return
    place = endpoint.directory / AGENT
    if os.geteuid() == 0 and place.is_dir():
        found = place.stat()
        # Root opens no connection: the agent's account does, with the agent's login.
        done = subprocess.run(
            [sys.executable, "-I", "-m", "muster.cli.farewell", id_],
            cwd=place,
            env={**os.environ, "MUSTER_HOME": "."},
            user=found.st_uid,
            group=found.st_gid,
            extra_groups=[],
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            _not_told(Outage.told(done.stdout.strip() or "The service could not be told."), force=force)
        return
    try:
        forget(id_)
    except MusterError as why:
        _not_told(why, force=force)


def _not_told(why: MusterError, *, force: bool) -> None:
    if not force:
        raise why
    click.echo(f"Warning: {why.message()}", err=True)


def forget(endpoint_id: str) -> None:
    from muster.rest import Rest

    try:
        Rest().call("DELETE", f"/v2/endpoints/{endpoint_id}", repeatable=True)
    except NotFound:
        return


def main() -> None:
    """Started by `deregister` as the agent's account; the sentence goes to whoever started it."""
    try:
        forget(sys.argv[1])
    except MusterError as why:
        click.echo(why.message())
        sys.exit(1)


if __name__ == "__main__":
    main()
