"""Started by `make demo` as whoever typed it; leaves accounts, others' ports and homes alone."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from muster.cli.demo.story import DemoFailed, Story
from muster.testing.namespace import Namespace, NamespaceRefusedError
from muster.testing.processes import Processes, StageError
from muster.testing.site import Site


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
        console.print(f"demo: no second account here ({why}); going on as `nobody`, never as root", markup=False)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    os.environ.update(HOME="/nonexistent", USER="nobody", LOGNAME="nobody")
    os.chdir("/")
    return None


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
