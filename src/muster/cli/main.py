"""`muster`: the command. Subcommands load when they are named, so that `muster --help` is quick."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from muster import __version__

# name -> module, attribute, the line that `--help` shows (a test holds it to the command's own)
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "serve": ("muster.cli.serve", "serve", "Run the service: API, identity, store and broker."),
    "env": ("muster.cli.env", "env", "Print what the official clients need to find this service."),
    "relay": ("muster.cli.env", "relay", "Listen on this machine and pass everything on to the service at URL."),
    "admin": ("muster.cli.admin", "admin", "Manage the accounts of a service you host."),
    "login": ("muster.cli.login", "login", "Log in to the service, and keep the tokens in ~/.muster."),
    "logout": ("muster.cli.login", "logout", "Revoke your tokens, and forget them."),
    "whoami": ("muster.cli.login", "whoami", "Show who the service takes you for."),
    "endpoints": ("muster.cli.listing", "endpoints", "List your endpoints."),
    "completion": ("muster.cli.completion", "completion", "Print the completion of both commands for a shell."),
    "version": ("muster.cli.listing", "version", "Print the version."),
}


class LazyGroup(click.Group):
    """Knows the names and their first lines; imports a command when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def muster() -> None:
    """Run Python functions on a site's computers, through a service you host yourself."""


if __name__ == "__main__":
    muster()
