"""`muster-endpoint`: what an administrator, or the owner of a single-user endpoint, does on a site."""

from __future__ import annotations

import json
import os
import sys
from uuid import UUID

import click

import muster
from muster.cli.configure import configure
from muster.cli.endpoint_login import login, logout, whoami
from muster.cli.local import LocalEndpoint, name_argument
from muster.cli.on_boot import disable_on_boot, enable_on_boot
from muster.cli.refusals import told
from muster.errors import Conflict, Unauthenticated

_STOP_S = 40  # the user endpoints get ten seconds, then the agent


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c", "--config-dir", default=None, metavar="DIR", help="Instead of ~/.muster [default: MUSTER_HOME when set]."
)
@click.version_option(muster.__version__, message="%(version)s")
def muster_endpoint(config_dir: str | None) -> None:
    """Offer this computer to users of the service."""
    if config_dir:
        os.environ["MUSTER_HOME"] = os.path.abspath(config_dir)  # noqa: PTH100 -- a string for the environment


for command in (configure, login, logout, whoami, enable_on_boot, disable_on_boot):
    muster_endpoint.add_command(command)


@muster_endpoint.command(params=[name_argument()])
@click.option("--endpoint-uuid", type=click.UUID, default=None, help="Register under this id.")
@click.option("--detach", is_flag=True, help="Give the terminal back when all is up.")
@click.option("--log-to-console", is_flag=True, help="Show the log here, too.")
@click.option("--debug", is_flag=True, help="Log more.")
@click.option("--ready-fd", type=int, default=-1, hidden=True)
@told
def start(
    name: str, endpoint_uuid: UUID | None, detach: bool, log_to_console: bool, debug: bool, ready_fd: int
) -> None:
    """Start an endpoint, and stay with it until it is stopped."""
    endpoint = LocalEndpoint.existing(name)
    wanted = str(endpoint_uuid or "")
    if detach:
        from muster.cli.launch import detach as detached

        flags = ["--debug"] * debug + (["--endpoint-uuid", wanted] if wanted else [])
        detached(endpoint, flags)
        return
    if endpoint.single_user:
        _run_single(endpoint, ready_fd)
        return
    from muster.cli.launch import become_monitor

    become_monitor(endpoint, console=log_to_console, debug=debug, endpoint_id=wanted, ready=ready_fd)


@muster_endpoint.command(params=[name_argument()])
@told
def stop(name: str) -> None:
    """Stop an endpoint and whatever it started."""
    stopped = _stop(LocalEndpoint.existing(name))
    click.echo(f"Endpoint <{name}> is stopped." if stopped else f"Endpoint <{name}> is not running.")


@muster_endpoint.command(params=[name_argument()])
@click.option("--endpoint-uuid", type=click.UUID, default=None, help="Register under this id.")
@click.option("--detach", is_flag=True, help="Give the terminal back when all is up.")
@click.option("--log-to-console", is_flag=True, help="Show the log here, too.")
@click.option("--debug", is_flag=True, help="Log more.")
@click.pass_context
def restart(ctx: click.Context, /, name: str, **options: object) -> None:
    """Stop an endpoint, and start it again."""
    ctx.invoke(stop, name=name)
    ctx.invoke(start, name=name, ready_fd=-1, **options)


@muster_endpoint.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@told
def list_endpoints(as_json: bool) -> None:
    """List the endpoints of this account on this machine."""
    found = [{"name": one.name, "status": one.status, "endpoint_id": one.endpoint_id} for one in LocalEndpoint.every()]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("No endpoints yet. Create one with: muster-endpoint configure NAME")
    for one in found:
        click.echo(f"{one['endpoint_id'] or '-':36}  {one['status']:11}  {one['name']}")


@muster_endpoint.command(params=[name_argument()])
@click.option("--force", is_flag=True, help="Stop it first if it runs; go on if the service cannot be told.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@told
def delete(name: str, force: bool, yes: bool) -> None:
    """Delete an endpoint: its registration, and its files."""
    endpoint = LocalEndpoint.existing(name)
    if endpoint.holder() is not None and not force:
        raise Conflict(why=f"Endpoint <{name}> is running. Stop it first, or use --force.")
    if not yes:
        click.confirm(f"Delete endpoint <{name}> and all its files in {endpoint.directory}?", abort=True)
    _stop(endpoint)
    from muster.cli.farewell import deregister

    deregister(endpoint, force=force)
    endpoint.remove()
    click.echo(f"Endpoint <{name}> is deleted.")


@muster_endpoint.command()
def version() -> None:
    """Print the version."""
    click.echo(muster.__version__)


def _stop(endpoint: LocalEndpoint) -> bool:
    def waiting(pid: int) -> None:
        click.echo(
            f"Stopping endpoint <{endpoint.name}> (process {pid}): what runs there may finish first ...", err=True
        )

    return endpoint.stop(_STOP_S, waiting)


def _run_single(endpoint: LocalEndpoint, ready_fd: int) -> None:
    """An endpoint that runs tasks itself, as whoever started it."""
    from muster.endpoint.single import run

    if os.geteuid() == 0:
        click.echo("Warning: started as root, this endpoint runs its owner's functions as root.", err=True)

    def ready(endpoint_id: UUID) -> None:
        click.echo(f"    >>> Endpoint ID: {endpoint_id} <<<")
        if ready_fd >= 0:
            os.write(ready_fd, b"+")
            os.close(ready_fd)

    def warn(what: str) -> None:
        click.echo(f"Warning: {what}", err=True)

    try:
        run(endpoint.directory, ready=ready, warn=warn)
    except Unauthenticated:
        from muster.rest import service_url
        from muster.rest.login import Login, can_ask

        if not can_ask():
            raise
        Login(service_url()).with_code()
        run(endpoint.directory, ready=ready, warn=warn)


if __name__ == "__main__":
    sys.exit(muster_endpoint())
