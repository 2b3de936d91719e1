"""The identity mapping is checked before a manager starts, by the very code that root will map with."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from muster.errors import ConfigInvalid
from muster_root import mapping
from muster_root.site import MAPPING_KEY, Site, open_trusted

_KINDS = {mapping.EXPRESSION: mapping.by_expression, mapping.EXTERNAL: mapping.by_program}
_SHOWN = 300


def check_mapping(site: Site) -> None:
    """ConfigInvalid names file, entry and key. It maps nobody and starts no program."""
    config = site.path("config.yaml")
    if not site.settings[MAPPING_KEY]:
        raise ConfigInvalid(file=config, why=f"{MAPPING_KEY} is missing: who becomes whom?")
    path = site.path(site.settings[MAPPING_KEY])
    try:
        with open_trusted(path, site.owner) as file:
            text = file.readall()
    except FileNotFoundError:
        raise ConfigInvalid(file=config, why=f"{MAPPING_KEY} is {path!r}; there is no such file") from None
    for at, entry in enumerate(_entries(text, path), 1):
        try:
            _check(entry)
        except KeyError as missing:
            raise ConfigInvalid(file=path, why=f"entry {at}: {missing} is missing") from None
        except (ValueError, TypeError, AttributeError, re.error) as why:
            raise ConfigInvalid(file=path, why=f"entry {at}: {str(why)[:_SHOWN]}") from None


def _entries(text: bytes, path: str) -> list[Any]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as why:
        place = f"line {why.lineno}, column {why.colno}"
        raise ConfigInvalid(file=path, why=f"{place}: is not JSON ({why.msg}); correct it there") from None
    except (ValueError, RecursionError) as why:
        raise ConfigInvalid(file=path, why=f"is not JSON ({why})") from None
    if not isinstance(entries, list):
        raise ConfigInvalid(file=path, why="must be a JSON list of mappings: put the object in [ ]")
    return entries


def _check(entry: Any) -> None:
    if not isinstance(entry, dict):
        raise TypeError(f"{entry!r:.60} must be an object with a DATA_TYPE")
    kind = entry["DATA_TYPE"]
    if kind not in _KINDS:
        raise ValueError(f"DATA_TYPE is {kind!r}; known are {', '.join(_KINDS)}")
    _KINDS[kind](entry)
    if kind == mapping.EXPRESSION:
        _check_groups(entry["mappings"])
    if kind == mapping.EXTERNAL and not os.access(entry["command"][0], os.X_OK):
        raise ValueError(f"command: {entry['command'][0]!r} is no program that can be run; correct the path, or chmod")
    if kind == mapping.EXTERNAL:  # root runs it: whoever could change it would be root
        open_trusted(os.path.realpath(entry["command"][0]), 0).close()


def _check_groups(rules: list[dict[str, Any]]) -> None:
    """An output that names a group which its pattern does not have would never map anybody."""
    for rule in rules:
        groups = mapping.pattern(rule).groups
        if any(not name.isdigit() or int(name) >= groups for name in re.findall(r"\{(\w+)\}", rule["output"])):
            raise ValueError(f"the output {rule['output']!r} names a group that {rule['match']!r} does not have")
