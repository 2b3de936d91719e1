"""The identity mapping is checked before a manager starts, by the very code that root will map with."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from muster.errors import ConfigInvalid
from muster_root import mapping
from muster_root.settings import MAPPING_KEY, Site, open_trusted

_KINDS = {mapping.EXPRESSION: mapping.by_expression, mapping.EXTERNAL: mapping.by_program}
_SHOWN = 300


def check_mapping(site: Site) -> None:
    """ConfigInvalid names file, entry and key. It maps nobody and starts no program."""
    path = site.path(site.settings[MAPPING_KEY])
    try:
        file = open_trusted(path, site.owner)
    except FileNotFoundError:
        raise ConfigInvalid(
            file=site.path("config.yaml"), why=f"{MAPPING_KEY} is {path!r}; there is no such file"
        ) from None
    with os.fdopen(file, "rb") as stream:
        text = stream.read()
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
    if kind == mapping.EXTERNAL and not os.access(entry["command"][0], os.X_OK):
        raise ValueError(f"command: {entry['command'][0]!r} is no program that can be run; correct the path, or chmod")
