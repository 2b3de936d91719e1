"""The story: a service, a site, two people, the seed's two examples."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from muster.testing.site import Manager, Site

_RESEARCHER = Path(__file__).with_name("researcher.py")


class DemoFailed(Exception):
    """The sentence to show."""


class Story:
    """Each step, with the time it took and the time since the start."""

    def __init__(self, site: Site, console: Console) -> None:
        self._site = site
        self._console = console
        self._begun = self._last = time.monotonic()

    def tell(self, *, keep: bool) -> None:
        """Everything in order; DemoFailed or StageError says what went wrong."""
        site = self._site
        site.serve()
        self._say(f"service is up: REST, identity and AMQP broker in one process ({site.ready.removeprefix('ready ')})")
        alone = site.processes.space is None
        site.person("mickey97")
        for person in ("harper", "alice"):
            # With one account the manager serves its owner's linked identities alone.
            site.person(person, linked_to="mickey97" if alone else None)
        self._say("harper@example.org and alice@example.org have credentials; mickey97@example.org runs the site")
        manager = site.manager("demo", "mickey97")
        powers = "agent and user endpoints under your account" if alone else "monitor as root, agent as _muster"
        self._say(f"manager is up, {powers}; endpoint id {manager.id}")
        for person in ("harper", "alice"):
            self._run_as(person, manager)
        self._say("[bold green]everything came back[/bold green]")
        if keep:
            self._leave_running(manager)

    def _run_as(self, person: str, manager: Manager) -> None:
        space = self._site.processes.space
        expected_uid = space.people[person].uid if space else os.geteuid()
        environment = self._site.person(person)
        out = self._site.processes.run(
            [sys.executable, str(_RESEARCHER), manager.id, "Obi-Wan"],
            environment,
            account=self._site.operator,
            patience_s=90,
        )
        told = [json.loads(line) for line in out.splitlines()]
        if not told:
            raise DemoFailed(f"{person}'s script printed no result")
        for line in told:
            if line["uid"] != expected_uid:
                raise DemoFailed(f"a result for {person} was made by uid {line['uid']}, not {expected_uid}")
            self._say(f"{person}: {line['call']} = [bold]{line['result']}[/bold]  made by uid {line['uid']}")

    def _leave_running(self, manager: Manager) -> None:
        self._say("it stays up until Ctrl+C; try it from another terminal:")
        for name, value in self._site.person("harper").items():
            self._console.print(f"  export {name}={value}", markup=False)
        self._console.print(f"  {sys.executable} {_RESEARCHER} {manager.id} Leia", markup=False)
        manager.process.process.wait()

    def _say(self, text: str) -> None:
        now = time.monotonic()
        self._console.print(f"[dim]{now - self._begun:6.2f} s  (+{now - self._last:5.2f})[/dim]  {text}")
        self._last = now
