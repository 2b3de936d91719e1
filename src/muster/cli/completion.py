"""`completion`: what a shell needs to finish the words of both commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the completion of both commands for a shell.

    Use it as: eval "$(muster completion bash)"
    """
    from muster.cli.endpoint import muster_endpoint
    from muster.cli.main import muster

    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    for command, program in ((muster, "muster"), (muster_endpoint, "muster-endpoint")):
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        # not `source()`: it starts bash to look at its version, which may be another bash than the reader's
        click.echo(kind.source_template % kind(command, {}, program, variable).source_vars())
