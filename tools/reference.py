"""Write the reference pages of docs/ from the code: commands.md, errors.md and rest.md.

    .venv/bin/python tools/reference.py

A test holds the pages to what this would write.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from muster import errors
from muster.cli.endpoint import muster_endpoint
from muster.cli.main import muster
from muster.cli.refusals import EXIT
from muster.identity import Authority
from muster.service.calls import CALLS
from muster.store import open_store
from muster.wire.rest import status_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- written by tools/reference.py; change the code, not this page -->\n"


def pages() -> dict[str, str]:
    """File name -> text."""
    return {"commands.md": commands_page(), "errors.md": errors_page(), "rest.md": rest_page()}


def commands_page() -> str:
    blocks = ["# Every command and option\n", MADE]
    for program, command in (("muster", muster), ("muster-endpoint", muster_endpoint)):
        for path, found in every_command(program, command):
            blocks.append(command_block(path, found))
    return "\n".join(blocks)


def every_command(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            found = command.get_command(context, name)
            if found is not None:
                yield from every_command(f"{path} {name}", found)


def command_block(path: str, command: click.Command) -> str:
    context = click.Context(command)
    words = [part for parameter in command.params for part in parameter.get_usage_pieces(context)]
    records = [found for found in (parameter.get_help_record(context) for parameter in command.params) if found]
    records = [(option, meaning) for option, meaning in records if option.startswith("-")]  # the heading has the rest
    help_text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    lines = [f"## `{' '.join([path, *words])}`\n", f"{help_text}\n"]
    if records:
        lines += ["| option | meaning |", "|---|---|"]
        lines += [f"| `{cell(option)}` | {cell(meaning)} |" for option, meaning in records] + [""]
    return "\n".join(lines)


def errors_page() -> str:
    head = """\
An error says who may read it: its sentence is written for the user and crosses the network, the rest stays in a log.
Over REST it is `{"code": ..., "message": ...}` with the status below; in Python the exception has `.code`; a task that
failed without a return value of its own tells the code in brackets. Commands end with the number in column three.
"""
    rows = ["| code | HTTP | exit | meaning | sentence |", "|---|---|---|---|---|"]
    for kind in sorted(every_error(errors.MusterError), key=lambda kind: kind.code.lower()):
        of_task = issubclass(kind, errors.TaskError)
        status = "in the result" if of_task else status_of(kind())
        exit_code = "-" if of_task else next(code for error, code in EXIT if issubclass(kind, error))
        promise = inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")
        rows.append(f"| `{kind.code}` | {status} | {exit_code} | {cell(promise)} | {cell(kind.public)} |")
    return "\n".join(["# Every error\n", MADE, head, *rows, ""])


def every_error(kind: type[errors.MusterError]) -> Iterator[type[errors.MusterError]]:
    if kind.__module__ == errors.__name__:
        yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from every_error(below)


def rest_page() -> str:
    head = "The same as a document for machines: `GET /openapi.json`. Errors: [errors.md](errors.md).\n"
    rows = ["| method | path | who may | what |", "|---|---|---|---|"]
    rows += [f"| {call.method} | `{call.path}` | {call.access} | {cell(call.summary)} |" for call in CALLS]
    more = ["## Identity\n", "| method | path |", "|---|---|"]
    more += [f"| {methods} | `{path}` |" for path, methods in asyncio.run(identity_routes())]
    return "\n".join(["# Every route\n", MADE, head, *rows, "", *more, ""])


async def identity_routes() -> list[tuple[str, str]]:
    """Paths and methods, from a provider that is opened on an empty store."""
    with tempfile.TemporaryDirectory() as directory:
        store = await open_store(f"sqlite:///{directory}/muster.db")
        try:
            authority = Authority(store, "https://muster.example.org")
            await authority.open()
            found = [
                (route.path, " ".join(sorted((route.methods or set()) - {"HEAD"}))) for route in authority.routes()
            ]
        finally:
            await store.close()
    return sorted(found)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text)
