"""`endpoints` and `version`: what there is."""

from __future__ import annotations

import json

import click

import muster
from muster.cli.refusals import told


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The service's own document.")
@click.option("--url", default=None, metavar="URL", help="The service [default: MUSTER_SERVICE_URL].")
@told
def endpoints(as_json: bool, url: str | None) -> None:
    """List your endpoints."""
    from muster.rest import Rest

    rest = Rest(url)
    found = rest.call("GET", "/v2/endpoints")
    for endpoint in found:
        endpoint["status"] = rest.call("GET", f"/v2/endpoints/{endpoint['uuid']}/status")["status"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("You have no endpoints. On the computer that is to run your functions: muster-endpoint configure")
    for endpoint in found:
        click.echo(f"{endpoint['uuid']}  {endpoint['status']:7}  {endpoint['display_name'] or endpoint['name']}")


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(muster.__version__)
