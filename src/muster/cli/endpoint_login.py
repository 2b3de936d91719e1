"""`muster-endpoint login`, `logout` and `whoami`: as root each manager has a login of its own, its agent's."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from muster.cli import login as account
from muster.cli.agent import is_roots, run_as_agent
from muster.cli.local import LocalEndpoint, name_argument
from muster.cli.refusals import told
from muster.errors import Invalid


def _with_name(command: click.Command) -> click.Command:
    """The same command, with the NAME of a manager for root."""

    @told
    def run(name: str | None, **values: Any) -> None:
        endpoint = _chosen(name)
        if endpoint is None:
            assert command.callback is not None
            command.callback(**values)
            return
        words = [command.name or ""]
        for parameter in command.params:
            value = values[parameter.name or ""]
            if value:
                words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
        sys.exit(run_as_agent(endpoint, "muster.cli.endpoint_login", words)[0])

    name = name_argument(default=None)
    text = f"{command.help}\n\nAs root each manager has a login of its own: say which, when there are several."
    return click.Command(command.name, params=[name, *command.params], callback=run, help=text)


def _chosen(name: str | None) -> LocalEndpoint | None:
    """Whose login it is: None for that of this account."""
    if name is not None:
        endpoint = LocalEndpoint.existing(name)
        return endpoint if is_roots(endpoint) else None
    if os.geteuid() != 0:
        return None
    found = [endpoint for endpoint in LocalEndpoint.every() if is_roots(endpoint)]
    if not found:
        raise Invalid(why="There is no manager here to log in. Create one with: muster-endpoint configure NAME")
    if len(found) > 1:
        raise Invalid(why=f"Which one? Say its name: {', '.join(endpoint.name for endpoint in found)}")
    return found[0]


_COMMANDS = (account.login, account.logout, account.whoami)
login, logout, whoami = map(_with_name, _COMMANDS)

if __name__ == "__main__":  # started by `run` as the agent's account
    click.Group(commands=_COMMANDS).main(prog_name="muster-endpoint")
