"""Taking an endpoint off the service's books, as the account whose login it was registered with."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from muster.cli.local import AGENT, LocalEndpoint
from muster.errors import NotFound, Outage


def deregister(endpoint: LocalEndpoint, *, force: bool) -> None:
    """Outage when the service cannot be told; with `force` that is only said."""
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
        )
        if done.returncode != 0 and not force:
            raise Outage(what="The service")
        return
    try:
        forget(id_)
    except Outage as why:
        if not force:
            raise
        click.echo(f"Warning: {why.message()}", err=True)


def forget(endpoint_id: str) -> None:
    from muster.rest import Rest

    try:
        Rest().call("DELETE", f"/v2/endpoints/{endpoint_id}", repeatable=True)
    except NotFound:
        return


if __name__ == "__main__":
    forget(sys.argv[1])
