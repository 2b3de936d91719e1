"""The terminal's edge: an error becomes one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import click

from muster.errors import (
    ConfigInvalid,
    Conflict,
    Invalid,
    Locked,
    MusterError,
    NotFound,
    NotPermitted,
    Outage,
    Unauthenticated,
)

P = ParamSpec("P")
R = TypeVar("R")

# The numbers of sysexits.h, as the official endpoint uses them.
EXIT: Final[tuple[tuple[type[MusterError], int], ...]] = (
    (Unauthenticated, 77),
    (NotPermitted, 77),
    (ConfigInvalid, 78),
    (Invalid, 65),
    (NotFound, 69),
    (Conflict, 69),
    (Locked, 69),
    (Outage, 75),
    (MusterError, 70),
)


class Refused(click.ClickException):
    """What click prints, with our exit code."""

    exit_code: int  # type: ignore[misc]  # click declares it for the class, and reads it from the instance

    def __init__(self, error: MusterError) -> None:
        why = error.facts.get("why")  # here nobody sent a payload: the reason alone says it better
        message = why if isinstance(error, Invalid) and isinstance(why, str) else error.message()
        context = click.get_current_context(silent=True)
        if context is not None and context.find_root().info_name == "muster-endpoint":
            message = message.replace("`muster login`", "`muster-endpoint login`")
        super().__init__(message)
        self.exit_code = next(code for kind, code in EXIT if isinstance(error, kind))


class Unreadable(click.ClickException):
    """A file or directory that the system refuses; EX_IOERR."""

    exit_code = 74


def told(command: Callable[P, R]) -> Callable[P, R]:
    """Put it under the click decorators: errors of ours, and files that refuse, are printed without a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except MusterError as error:
            raise Refused(error) from error
        except OSError as why:
            if why.filename is None or why.strerror is None:
                raise  # not about a file that somebody could mend
            raise Unreadable(f"{why.filename}: {why.strerror}") from why

    return run
