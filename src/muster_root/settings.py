"""What root reads of a manager's directory: a few keys of config.yaml, its own root.json, and files that it hands on.

Every file is opened without following links, and only if nobody but root (without root: the owner) could have changed
it or a directory above it. The file that was checked is the file that is read.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import ExitStack
from io import FileIO

MAPPING_KEY = "identity_mapping_config_path"
TEMPLATE_KEY = "user_config_template_path"
SCHEMA_KEY = "user_config_schema_path"
KEYS = {MAPPING_KEY: "", TEMPLATE_KEY: "", SCHEMA_KEY: "", "min_uid": "1000", "agent_user": "_muster"}
VALUE = re.compile(r"""(\w+)[ ]*:(?:[ ]+(?:'([^'\\]*)'|"([^"\\]*)"|([\w./+@-]+)))?[ ]*(?:[ ]\#.*)?""")


class Unusable(Exception):
    """A file cannot be trusted or understood; says which, why, and what to run."""


def open_trusted(path: str, owner: int) -> FileIO:
    """For reading; FileNotFoundError when there is no such file."""
    place, at, parts = None, "", ["/", *filter(None, path.split("/"))]
    with ExitStack() as opened:
        for number, part in enumerate(parts, 1):
            at, last = os.path.join(at, part), number == len(parts)
            kind = os.O_NONBLOCK if last else os.O_PATH | os.O_DIRECTORY  # opening a pipe must not wait
            try:
                place = os.open(part, kind | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            except FileNotFoundError:
                raise
            except OSError as why:
                raise Unusable(f"{at} cannot be opened without following links: {why.strerror}") from None
            opened.callback(os.close, place)
            found = os.fstat(place)
            shared = found.st_mode & 0o022 and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX)
            if found.st_uid not in (0, owner) or shared or (last and not stat.S_ISREG(found.st_mode)):
                who = f"owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
                raise Unusable(f"{at} could be changed by others ({who}). Run: chown {owner} {at} && chmod go-w {at}")
        return FileIO(os.dup(place or 0))


def memory_file(content: bytes = b"") -> FileIO:
    """To be read from its beginning."""
    file = FileIO(os.memfd_create("muster"), "w+")
    os.pwrite(file.fileno(), content, 0)
    return file


def scan(text: str, file: str) -> dict[str, str]:
    """The values of our own keys. Root has no YAML parser: they must be plain, one to a line."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        named = [key for key in KEYS if re.search(rf"\b{key}\b", line.partition("#")[0])]
        found = VALUE.fullmatch(line)
        if named and (not found or found[1] != named[0] or found[1] in values):
            raise Unusable(f"{file}:{number}: write `{named[0]}: VALUE` once, on a line of its own, plain or in quotes")
        if named and found:
            values[found[1]] = next((value for value in found.groups()[1:] if value is not None), "")
    values = KEYS | {key: value for key, value in values.items() if value not in ("", "null")}
    if not values["min_uid"].isdigit():
        raise Unusable(f"{file}: min_uid must be a number such as 1000, not {values['min_uid']!r}")
    return values


class Site:
    """One manager's directory, as its owner sees it."""

    def __init__(self, directory: str) -> None:
        self.directory, self.owner = os.path.realpath(directory), os.getuid()
        self.name, self.privileged = os.path.basename(self.directory), self.owner == 0
        self.settings = scan(self.read("config.yaml"), self.path("config.yaml"))
        if self.privileged and not self.settings[MAPPING_KEY]:
            raise Unusable(f"{self.path('config.yaml')}: {MAPPING_KEY} is missing: who becomes whom?")
        template = self.settings[TEMPLATE_KEY] or "user_config_template.yaml", "user_config_template.yaml.j2"
        schema = self.settings[SCHEMA_KEY] or "user_config_schema.json"
        self.names = template, (schema,), ("user_environment.yaml",), ("config.yaml",)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def open(self, name: str) -> FileIO:
        return open_trusted(self.path(name), self.owner)

    def read(self, name: str) -> str:
        with self.open(name) as file:
            return file.readall().decode()

    def files(self, until: ExitStack) -> list[int]:
        """Template, schema, environment, config, opened; what the site does not have is an empty memory file."""
        found = [next((name for name in names if os.path.exists(self.path(name))), "") for names in self.names]
        return [until.enter_context(self.open(name) if name else memory_file()).fileno() for name in found]

    def record(self) -> dict[str, str]:
        """Endpoint id, seal key and the owner's identities, from the last registration."""
        return dict(json.loads(self.read("root.json")))
