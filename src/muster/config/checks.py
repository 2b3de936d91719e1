"""The files beside a manager's config.yaml: checked before anything starts, and later read by the same rules."""

from __future__ import annotations

import json
from typing import Any

from muster.config.document import read_document
from muster.config.user_endpoint import read_user_endpoint
from muster.errors import ConfigInvalid


def read_environment(text: str, file: str) -> dict[str, str]:
    """`user_environment.yaml`: a flat list of variables, as the administrator wrote them."""
    document = read_document(text, file)
    variables: dict[str, str] = {}
    for name, value in document.data.items():
        if isinstance(value, (dict, list)):
            raise document.refuse([name], f"{name} must be one value: the file is a flat list of `NAME: value`")
        if not name or "=" in name or "\0" in name or "\0" in str(value):
            raise document.refuse([name], f"{name!r:.80} cannot be an environment variable")
        variables[name] = _as_written(value)
    return variables


def read_schema(text: str, file: str) -> Any:
    """The JSON in `text`; None when there is no schema."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as why:
        raise ConfigInvalid(
            file=file, why=f"line {why.lineno}, column {why.colno}: is not JSON ({why.msg}); correct it there"
        ) from None
    except (ValueError, RecursionError) as why:
        raise ConfigInvalid(file=file, why=f"is not JSON ({why})") from None


def check_schema(document: Any, file: str) -> Any:
    """The class that validates by it; ConfigInvalid names the keyword that no validator understands."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        chosen = validator_for(document, default=Draft202012Validator)
        chosen.check_schema(document)
    except SchemaError as why:
        place = ".".join(map(str, why.absolute_path))
        where = f"{place}: " if place else ""
        raise ConfigInvalid(file=file, why=f"{where}is no JSON schema: {why.message[:200]}") from None
    except RecursionError:
        raise ConfigInvalid(file=file, why="is nested too deeply, or refers to itself without end") from None
    return chosen


def check_template(text: str, file: str) -> None:
    """What can be known without a user's values: the syntax, and all of it where there is nothing to render."""
    if not text.strip():
        raise ConfigInvalid(file=file, why="is missing or empty; it must say what runs the tasks, under `engine:`")
    if not any(mark in text for mark in ("{{", "{%", "{#")):
        read_user_endpoint(read_document(text, file))
        return
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment()
    environment.filters["shell_escape"] = str
    try:
        environment.compile(text)
    except jinja2.TemplateSyntaxError as why:
        raise ConfigInvalid(file=file, why=f"line {why.lineno}: {why.message}") from None


def _as_written(value: object) -> str:
    """As the administrator wrote it, nearly: YAML reads `yes` as a truth value."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
