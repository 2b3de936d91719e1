"""`enable-on-boot` and `disable-on-boot`: an endpoint as a service of systemd."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import click

from muster.cli.local import LocalEndpoint, name_argument
from muster.cli.refusals import told
from muster.errors import Invalid, NotPermitted

_UNIT_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_UNITS = "/etc/systemd/system"

# No NoNewPrivileges, sandbox of files or limit that users' own jobs would feel: those are set for each user endpoint
# when it becomes its user. KillMode=mixed: the monitor alone is told to stop, it stops the rest in order.
_UNIT = """\
[Unit]
Description=Muster endpoint {name}
Wants=network-online.target
After=network-online.target nss-user-lookup.target

[Service]
Type=exec
ExecStart={program} -c {home} start {name}
Environment=MUSTER_SERVICE_URL={url}
EnvironmentFile=-/etc/muster/{name}.env
Restart=always
RestartSec=5
RestartPreventExitStatus=65 69 77 78
KillMode=mixed
TimeoutStopSec=60
OOMPolicy=continue
{powers}
[Install]
WantedBy=multi-user.target
"""
# What the monitor needs: to give its agent a directory, to become users with no power left, and to stop them.
_POWERS = """\
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL CAP_CHOWN CAP_DAC_READ_SEARCH
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
"""


def _unit_option() -> click.Option:
    kind = click.Path(path_type=Path, file_okay=False)
    return click.Option(["--unit-dir"], default=_UNITS, type=kind, hidden=True)


@click.command("enable-on-boot", params=[name_argument(), _unit_option()])
@told
def enable_on_boot(name: str, unit_dir: Path) -> None:
    """Install a systemd unit that starts an endpoint when the machine does."""
    endpoint = LocalEndpoint.existing(name)
    unit = _unit(endpoint)
    text = _UNIT.format(
        name=name,
        program=_quoted(Path(sys.prefix, "bin", "muster-endpoint")),
        home=_quoted(endpoint.directory.parent.absolute()),
        url=_quoted(os.environ.get("MUSTER_SERVICE_URL") or "http://localhost:5000"),
        powers="" if endpoint.single_user else _POWERS,
    )
    try:
        (unit_dir / f"{unit}.service").write_text(text)
    except OSError as why:
        raise NotPermitted(why=f"{unit_dir} cannot be written ({why.strerror}); run this as root") from None
    if os.environ.get("MUSTER_CLIENT_SECRET"):
        click.echo(f"Warning: MUSTER_CLIENT_SECRET is not in the unit; put it into /etc/muster/{name}.env", err=True)
    if endpoint.endpoint_id is None:
        click.echo(f"Warning: log in first, with: muster-endpoint login {name}", err=True)
    click.echo(f"Systemd service installed at {unit_dir}/{unit}.service. Run")
    click.echo(f"    sudo systemctl enable {unit} --now")
    click.echo("to enable the service and start the endpoint.")


@click.command("disable-on-boot", params=[name_argument(), _unit_option()])
@told
def disable_on_boot(name: str, unit_dir: Path) -> None:
    """Say how to stop and remove what enable-on-boot installed."""
    unit = _unit(LocalEndpoint.existing(name))
    file = unit_dir / f"{unit}.service"
    if not file.exists():
        raise Invalid(why=f"There is no {file}.")
    click.echo("Run the following to stop the endpoint, and to remove its service:")
    click.echo(f"    sudo systemctl stop {unit}")
    click.echo(f"    sudo systemctl disable {unit}")
    click.echo(f"    sudo rm {file}")


def _unit(endpoint: LocalEndpoint) -> str:
    if not _UNIT_NAME.fullmatch(endpoint.name):
        raise Invalid(why=f"systemd cannot have a unit for {endpoint.name!r}: use letters, digits, dots, - and _")
    return f"muster-endpoint-{endpoint.name}"


def _quoted(word: object) -> str:
    """One word for systemd, whatever is in it."""
    text = str(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if re.search(r"""[\s"'\\;]""", text) else text
