"""Taking an endpoint off the service's books, as the account whose login it was registered with."""

from __future__ import annotations

import sys

import click

from muster.cli.agent import is_roots, run_as_agent
from muster.cli.local import LocalEndpoint
from muster.errors import MusterError, NotFound, Outage


def deregister(endpoint: LocalEndpoint, *, force: bool) -> None:
    """The error that kept the service from being told; with `force` it is only said."""
    id_ = endpoint.endpoint_id
    if id_ is None:
        return
    if is_roots(endpoint):  # root opens no connection: the agent's account does, with the agent's login
        status, said = run_as_agent(endpoint, "muster.cli.farewell", [id_], ask_for_output=True)
        if status != 0:
            _not_told(Outage.told(said.strip() or "The service could not be told."), force=force)
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


def _give_back_the_login() -> None:
    """It was this endpoint's alone, and its file goes now: nobody else should find the tokens good."""
    from muster.rest import service_url
    from muster.rest.login import Login

    Login(service_url()).logout()


def main() -> None:
    """Started by `deregister` as the agent's account; the sentence goes to whoever started it."""
    try:
        forget(sys.argv[1])
        _give_back_the_login()
    except MusterError as why:
        click.echo(why.message())
        sys.exit(1)


if __name__ == "__main__":
    main()
