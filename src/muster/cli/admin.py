"""`muster admin`: accounts and service accounts, in the store itself; the service may run or not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from muster.cli.plan import default_data
from muster.cli.refusals import told

if TYPE_CHECKING:
    from muster.identity import People
    from muster.model.identity import Identity

T = TypeVar("T")
Command = Callable[..., Any]


def store_options(command: Command) -> Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="For scripts."),
        click.option("--database", metavar="URL", envvar="MUSTER_DATABASE", help="The store's URL, instead of --data."),
        click.option(
            "--data",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            envvar="MUSTER_DATA",
            help="The service's data directory.",
        ),
    ):
        command = option(command)
    return command


def password_option(command: Command) -> Command:
    return click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(command)


@click.group()
def admin() -> None:
    """Manage the accounts of a service you host."""


@admin.group()
def identity() -> None:
    """People: their user names and passwords."""


@admin.group()
def client() -> None:
    """Service accounts: programs that log in with a secret."""


@identity.command("add")
@click.argument("username")
@click.option("--name", default="", help="The person's full name.")
@click.option("--email", default=None, help="The person's e-mail address.")
@click.option("--link-to", default=None, metavar="USERNAME", help="The same person as this one.")
@password_option
@store_options
@told
def identity_add(
    username: str,
    name: str,
    email: str | None,
    link_to: str | None,
    password_stdin: bool,
    data: Path | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Add USERNAME, such as harper@example.org."""
    password = _password(required=False, from_stdin=password_stdin)

    async def work(people: People) -> Identity:
        return await people.add(username, name=name, email=email, password=password, linked_to=link_to)

    added = _with_people(data, database, work)
    note = "" if password else " (no password yet: `muster admin identity passwd`)"
    _say(as_json, _identity(added), f"Added {added.username} as {added.id}{note}")


@identity.command("list")
@store_options
@told
def identity_list(data: Path | None, database: str | None, as_json: bool) -> None:
    """List every identity and what it is linked to."""

    async def work(people: People) -> list[dict[str, Any]]:
        return [
            {**_identity(one), "linked_to": [other.username for other in await people.linked(one)]}
            for one in await people.all()
        ]

    found = _with_people(data, database, work)
    lines = [
        f"{one['id']}  {one['username']}" + (f"  = {', '.join(one['linked_to'])}" if one["linked_to"] else "")
        for one in found
    ]
    _say(as_json, found, "\n".join(lines) or "There are no identities yet.")


@identity.command("passwd")
@click.argument("username")
@password_option
@store_options
@told
def identity_passwd(
    username: str, password_stdin: bool, data: Path | None, database: str | None, as_json: bool
) -> None:
    """Set the password of USERNAME, and end its sessions and tokens.

    Programs with a client secret simply get a new token; endpoints that were started with a login need another one.
    """
    password = _password(required=True, from_stdin=password_stdin) or ""

    async def work(people: People) -> tuple[Identity, int]:
        return await people.set_password(username, password)

    changed, ended = _with_people(data, database, work)
    _say(
        as_json,
        _identity(changed) | {"ended": ended},
        f"The password of {changed.username} is set; {ended} of its sessions and tokens ended.",
    )


@identity.command("link")
@click.argument("username")
@click.argument("other")
@store_options
@told
def identity_link(username: str, other: str, data: Path | None, database: str | None, as_json: bool) -> None:
    """Declare USERNAME and OTHER the same person. It cannot be undone."""

    async def work(people: People) -> tuple[Identity, Identity]:
        return await people.link(username, other)

    one, two = _with_people(data, database, work)
    _say(as_json, {"linked": [_identity(one), _identity(two)]}, f"{one.username} and {two.username} are one person.")


@client.command("add")
@click.argument("name")
@click.option("--identity", "acts_as", default=None, metavar="USERNAME", help="Whom it acts as [default: itself].")
@store_options
@told
def client_add(name: str, acts_as: str | None, data: Path | None, database: str | None, as_json: bool) -> None:
    """Add a service account; its secret is shown this once."""
    new = _with_people(data, database, lambda people: people.add_client(name, acts_as))
    document = {
        "client_id": str(new.client_id),
        "client_secret": new.client_secret,
        "name": new.name,
        "identity_id": str(new.identity.id),
        "username": new.identity.username,
    }
    lines = [
        f"MUSTER_CLIENT_ID={new.client_id}",
        f"MUSTER_CLIENT_SECRET={new.client_secret}",
        f"# {new.name} acts as {new.identity.username}; the secret is not shown again",
    ]
    _say(as_json, document, "\n".join(lines))


@client.command("list")
@store_options
@told
def client_list(data: Path | None, database: str | None, as_json: bool) -> None:
    """List every client and whom it acts as."""

    async def work(people: People) -> list[dict[str, Any]]:
        found = await people.clients()
        names = await people.names([each.identity for each in found if each.identity])
        return [
            {
                "client_id": str(each.id),
                "name": each.name,
                "username": names.get(each.identity) if each.identity else None,
                "confidential": each.secret_sha256 is not None,
            }
            for each in found
        ]

    found = _with_people(data, database, work)
    lines = [f"{each['client_id']}  {each['name']}  {each['username'] or '(for people)'}" for each in found]
    _say(as_json, found, "\n".join(lines) or "There are no clients yet.")


def _with_people(data: Path | None, database: str | None, work: Callable[[People], Awaitable[T]]) -> T:
    """Open the store, do it, close the store."""
    if data is None and database is None and (default_data() / "muster.db").exists():
        data = default_data()  # as `muster serve` without --data; only one that exists: a second store helps nobody
    if (data is None) == (database is None):
        raise click.UsageError(f"Say where the store is: --data DIR or --database URL (none in {default_data()}).")
    if data is not None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = database or f"sqlite:///{data.resolve() if data else ''}/muster.db"

    async def run() -> T:
        from muster.identity import People
        from muster.store import open_store

        store = await open_store(url)
        try:
            return await work(People(store))
        finally:
            await store.close()

    return asyncio.run(run())


def _password(*, required: bool, from_stdin: bool) -> str | None:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if required or sys.stdin.isatty():
        typed: str = click.prompt(
            "Password" if required else "Password (empty: none yet)",
            hide_input=True,
            confirmation_prompt=True,
            default=None if required else "",
            show_default=False,
            err=True,
        )
        return typed or None
    return None


def _identity(identity: Identity) -> dict[str, Any]:
    return {
        "id": str(identity.id),
        "username": identity.username,
        "name": identity.name,
        "email": identity.email,
    }


def _say(as_json: bool, document: object, text: str) -> None:
    click.echo(json.dumps(document, indent=2) if as_json else text)
