"""Started by a manager's monitor for one user, as that user, with the payload on descriptor 0.

It must never run as anybody else, believe a payload before its digest is checked, or end without saying why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import NoReturn

from muster.config import UserEndpointConfig, read_user_endpoint
from muster.endpoint import log as logs
from muster.endpoint.disk import Place, home
from muster.endpoint.handover import Handover
from muster.endpoint.links import Links
from muster.endpoint.report import failure
from muster.errors import ConfigInvalid, CredentialsRefused, Invalid, MusterError, StartFailed

log = logging.getLogger(__name__)

EXIT_CONFIG, EXIT_SOFTWARE, EXIT_CREDENTIALS = os.EX_CONFIG, os.EX_SOFTWARE, os.EX_NOPERM
_REPORT_LIMIT_S = 8
_PREDECESSOR_S = 30  # one whose manager was killed finishes what it runs before it leaves the place to us


class Process:
    """One run of the program: what it learnt so far decides how a failure can be told."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._early = logs.EarlyLog()
        self._links: Links | None = None
        self._ready = False

    def run(self) -> int:
        """The exit status."""
        try:
            self._serve()
        except CredentialsRefused as why:
            return self._ended(why, EXIT_CREDENTIALS)
        except (ConfigInvalid, Invalid, StartFailed) as why:
            return self._ended(why, EXIT_CONFIG)
        except Exception as why:  # noqa: BLE001 the edge of the process: whatever went wrong must be told
            return self._ended(why, EXIT_SOFTWARE)
        return 0

    def _serve(self) -> None:
        handover = Handover.take(self._arguments)
        payload = handover.believed()
        self._links = Links.of_payload(payload)
        handover.export_environment()
        rendered = handover.rendered(payload)
        config = read_user_endpoint(rendered.document)
        place = _place(handover.name, config)
        try:
            self._log(config, place)
            _name_process(f"muster: user endpoint {handover.name}")
            from muster.endpoint.serve import Assignment, UserEndpoint  # after the cheap ways to fail

            assignment = Assignment(
                links=self._links,
                config=config,
                place=place,
                name=handover.name,
                config_raw=rendered.text(),
                mapped=handover.mapped,
                lifeline=handover.lifeline,
                ready=self._checked_in,
            )
            asyncio.run(_run(UserEndpoint, assignment))
        finally:
            place.leave()

    def _log(self, config: UserEndpointConfig, place: Place) -> None:
        path = config.endpoint_log or place.directory / logs.NAME
        try:
            logs.to_file(path, debug=config.debug)
        except OSError as why:
            raise StartFailed(why=f"{path} cannot be written ({why.strerror})") from None
        for warning in config.warnings:
            log.warning("%s", warning)

    def _checked_in(self) -> None:
        self._ready = True
        self._early.close()

    def _ended(self, why: Exception, status: int) -> int:
        reason = told(why)
        kept = reason if self._ready else StartFailed(why=reason).message()
        log.error("%s", kept, exc_info=None if isinstance(why, MusterError) else why)
        if self._ready:
            return status
        if self._links is not None and not isinstance(why, CredentialsRefused):
            try:
                asyncio.run(_report(self._links, reason))
            except Exception as trouble:  # noqa: BLE001 telling is best effort, the sentence below is told anyway
                log.warning("The failure could not be reported: %s", trouble)
        self._early.say(reason)
        return status


def told(why: Exception) -> str:
    """The reason in plain words, whatever it was: whoever tells the user says what it is the reason for."""
    if isinstance(why, (StartFailed, Invalid)) and "why" in why.facts:
        return str(why.facts["why"])
    return why.message() if isinstance(why, MusterError) else f"{type(why).__name__}: {why}"


async def _run(kind: type, assignment: object) -> None:
    await kind(assignment).run()


async def _report(links: Links, reason: str) -> None:
    from muster.transport.amqp import AmqpTransport

    async with asyncio.timeout(_REPORT_LIMIT_S):
        transport = AmqpTransport(links.url, label="failure report", patience_s=_REPORT_LIMIT_S)
        await transport.open()
        try:
            await transport.publish([links.report(failure(reason, StartFailed.code))])
        finally:
            await transport.close()


def _place(name: str, config: UserEndpointConfig) -> Place:
    os.umask(0o077)
    place = Place(config.endpoint_dir or home() / name)
    place.take(_PREDECESSOR_S)
    return place


def _name_process(title: str) -> None:
    from setproctitle import setproctitle

    setproctitle(title)


def main() -> NoReturn:
    sys.exit(Process(sys.argv[1:]).run())


if __name__ == "__main__":
    main()
