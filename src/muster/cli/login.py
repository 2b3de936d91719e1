"""`login`, `logout` and `whoami`, the same for both programs."""

from __future__ import annotations

import json

import click

from muster.cli.refusals import told


@click.command()
@click.option("--device", is_flag=True, help="Approve a short code in any browser; nothing to paste back.")
@click.option("--force", is_flag=True, help="Log in again although you are logged in.")
@click.option("--url", default=None, metavar="URL", help="The service [default: MUSTER_SERVICE_URL].")
@told
def login(device: bool, force: bool, url: str | None) -> None:
    """Log in to the service, and keep the tokens in ~/.muster."""
    from muster.rest import service_url
    from muster.rest.login import Login

    service = url or service_url()
    if not force and (known := _known_as(service)):
        click.echo(f"You are logged in to {service} as {known} already. Use --force to log in again.")
        return
    attempt = Login(service)
    if device:
        attempt.with_device()
    else:
        attempt.with_code()
    click.echo(f"You are logged in to {service} as {_known_as(service)}.")


def _known_as(service: str) -> str | None:
    """Whom the service takes the kept tokens for: they may have been revoked since."""
    from muster.errors import Unauthenticated
    from muster.rest import Rest
    from muster.rest.tokens import StoredTokens

    try:
        person = Rest(service, StoredTokens(service)).call("GET", "/v2/oauth2/userinfo")
    except Unauthenticated:
        return None
    return str(person["preferred_username"])


@click.command()
@click.option("--url", default=None, metavar="URL", help="The service [default: MUSTER_SERVICE_URL].")
@told
def logout(url: str | None) -> None:
    """Revoke your tokens, and forget them."""
    from muster.rest import service_url
    from muster.rest.login import Login

    service = url or service_url()
    done = Login(service).logout()
    click.echo(f"You are logged out of {service}." if done else f"You were not logged in to {service}.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The service's own document.")
@click.option("--linked-identities", is_flag=True, help="Show every identity that is linked to yours.")
@click.option("--url", default=None, metavar="URL", help="The service [default: MUSTER_SERVICE_URL].")
@told
def whoami(as_json: bool, linked_identities: bool, url: str | None) -> None:
    """Show who the service takes you for."""
    from muster.rest import Rest

    person = Rest(url).call("GET", "/v2/oauth2/userinfo")
    if as_json:
        click.echo(json.dumps(person, indent=2))
        return
    for each in person["identity_set"] if linked_identities else person["identity_set"][:1]:
        click.echo(f"{each['username']}  {each['name']}  {each['id']}")
