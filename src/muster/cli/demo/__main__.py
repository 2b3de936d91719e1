"""Started by `make demo` as whoever typed it; leaves accounts, others' ports and homes alone."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from muster.cli.demo.story import DemoFailed, Story
from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import Processes, StageError
from muster.testing.site import Site

_NOBODY = 65534


def main() -> int:
    """0 only if every result came back, made by the account it should be made by."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl+C")
    keep = parser.parse_args().keep
    os.umask(0o022)  # the accounts of the demo must be able to pass the temporary directory
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        space = _several_accounts(stack, console)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-demo-")))
        directory.chmod(0o755)
        processes = stack.enter_context(Processes(space))
        site = Site(directory, processes)
        try:
            Story(site, console).tell(keep=keep)
        except (DemoFailed, StageError) as why:
            _show_failure(console, site, str(why))
            return 1
        except KeyboardInterrupt:
            console.print("stopped")
            return 0 if keep else 130
    return 0


def _several_accounts(stack: contextlib.ExitStack, console: Console) -> Namespace | None:
    """A namespace with accounts of its own, or None and one account for everybody."""
    if os.geteuid() != 0:
        console.print("demo: not root, so both people's functions run under your own account")
        return None
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-demo-accounts-")))
    directory.chmod(0o755)
    try:
        return stack.enter_context(Namespace(directory, network=False))
    except NamespaceRefusedError as why:
        console.print(f"demo: no second account here: {why}", markup=False)
    # Nobody's functions run as root: the whole demo goes on as an account that owns nothing.
    console.print("demo: going on as `nobody`, one account for both people")
    home = directory / "nobody"
    home.mkdir(mode=0o700)
    os.chown(home, _NOBODY, _NOBODY)
    environment = {**os.environ, "HOME": str(home), "USER": "nobody", "LOGNAME": "nobody"}
    again = [sys.executable, "-m", "muster.cli.demo", *sys.argv[1:]]
    raise SystemExit(
        subprocess.call(again, env=environment, cwd="/", user=_NOBODY, group=_NOBODY, extra_groups=[], umask=0o022)
    )


def _show_failure(console: Console, site: Site, why: str) -> None:
    console.print("[bold red]The demo failed:[/bold red]")
    console.print(why, markup=False)
    for running in site.processes.running:
        console.print(f"[dim]last lines of {running.name}:[/dim]")
        console.print(running.last_words(15), markup=False)
    for log in sorted(site.directory.rglob("endpoint.log")):
        console.print(f"[dim]last lines of {log}:[/dim]")
        console.print("\n".join(log.read_text(errors="replace").splitlines()[-15:]), markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
