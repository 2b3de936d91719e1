"""`configure`: the files of a new endpoint, as the administrators' guide shows them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import click

from muster.cli.local import CONFIG, LocalEndpoint
from muster.cli.refusals import told
from muster.errors import Conflict, Invalid

MAPPING = "example_identity_mapping_config.json"
TEMPLATE = "user_config_template.yaml"
SCHEMA = "user_config_schema.json"
ENVIRONMENT = "user_environment.yaml"

_MAPPING = """\
[
  {
    "comment": "For more examples, see: https://docs.globus.org/globus-connect-server/v5.4/identity-mapping-guide/",
    "DATA_TYPE": "external_identity_mapping#1.0.0",
    "command": ["/bin/false", "--some", "flag", "-a", "-b", "-c"]
  },
  {
    "comment": "For more examples, see: https://docs.globus.org/globus-connect-server/v5.4/identity-mapping-guide/",
    "DATA_TYPE": "expression_identity_mapping#1.0.0",
    "mappings": [
      {
        "source": "{username}",
        "match": "(.*)@example.com",
        "output": "{0}"
      }
    ]
  }
]
"""

_TEMPLATE = """\
endpoint_setup: {{ endpoint_setup|default() }}
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 1
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 0
    max_blocks: 1
    worker_init: {{ worker_init|default() }}

idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760
"""

_SCHEMA = """\
{
   "$schema": "https://json-schema.org/draft/2020-12/schema",
   "type": "object",
   "properties": {
      "endpoint_setup": { "type": "string" },
      "worker_init": { "type": "string" }
   },
   "additionalProperties": true
}
"""

_ENVIRONMENT = """\
# Variables for the environment of the user endpoints, one `NAME: value` a line. For example:
# SITE_SPECIFIC_VAR: --additional_flag_for_frobnicator
"""

_MADE = """\
Created multi-user profile for endpoint named <{name}>

    Configuration file: {directory}/config.yaml

    Example identity mapping configuration: {directory}/example_identity_mapping_config.json

    User endpoint configuration template: {directory}/user_config_template.yaml
    User endpoint configuration schema: {directory}/user_config_schema.json
    User endpoint environment variables: {directory}/user_environment.yaml

Use the `start` subcommand to run it:

    {prompt} muster-endpoint start {name}
"""

_MADE_SINGLE = """\
Created profile for endpoint named <{name}>

    Configuration file: {directory}/config.yaml

Use the `start` subcommand to run it:

    {prompt} muster-endpoint start {name}
"""

_YES, _NO = {"1", "true", "t", "yes", "y", "on"}, {"0", "false", "f", "no", "n", "off"}


class _Command(click.Command):
    """`--multi-user` alone means true, also when the name follows: `configure --multi-user NAME`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        following = [*args[1:], ""]
        joined: list[str] = []
        for word, after in zip(args, following, strict=True):
            if joined and joined[-1].startswith("--multi-user=?"):
                joined[-1] = f"--multi-user={word}"
            elif word == "--multi-user":
                joined.append("--multi-user=?" if after.lower() in _YES | _NO else "--multi-user=true")
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(cls=_Command)
@click.argument("name", default="default")
@click.option(
    "--multi-user",
    type=bool,
    default=None,
    metavar="[BOOL]",
    help="Start user endpoints for others [default: yes as root, no otherwise].",
)
@click.option("--display-name", default=None, help="Under which name people see it.")
@click.option("--auth-policy", type=click.UUID, default=None, help="An authentication policy that users must satisfy.")
@click.option("--id-mapping-config", type=_FILE, default=None, help="Take the identity mapping from this file.")
@click.option("--template-config", type=_FILE, default=None, help="Take the template from this file.")
@click.option("--schema-config", type=_FILE, default=None, help="Take the schema from this file.")
@click.option("--user-env-config", type=_FILE, default=None, help="Take the environment variables from this file.")
@click.option("--core-config", "--manager-config", type=_FILE, default=None, help="Take config.yaml from this file.")
@told
def configure(
    name: str,
    multi_user: bool | None,
    display_name: str | None,
    auth_policy: UUID | None,
    id_mapping_config: Path | None,
    template_config: Path | None,
    schema_config: Path | None,
    user_env_config: Path | None,
    core_config: Path | None,
) -> None:
    """Create the files of a new endpoint."""
    endpoint = LocalEndpoint.named(name)
    root = os.geteuid() == 0
    manager = root if multi_user is None else multi_user
    given = {
        MAPPING: id_mapping_config,
        TEMPLATE: template_config,
        SCHEMA: schema_config,
        ENVIRONMENT: user_env_config,
    }
    if not manager and any(given.values()):
        raise Invalid(why="a single-user endpoint has no templates or mappings; add --multi-user")
    settings = {"authentication_policy": str(auth_policy) if auth_policy else None, "display_name": display_name}
    if core_config is not None and any(settings.values()):
        raise Invalid(why="say it in the file of --core-config: --display-name and --auth-policy change a new one only")
    files = _manager_files(endpoint.directory, settings, given) if manager else _single_files(settings)
    if core_config is not None:
        files[CONFIG] = core_config.read_text()
    _write(endpoint, files)
    message = _MADE if manager else _MADE_SINGLE
    click.echo(message.format(name=name, directory=endpoint.directory, prompt="#" if root else "$"))


def _manager_files(
    directory: Path, settings: Mapping[str, str | None], given: Mapping[str, Path | None]
) -> dict[str, str]:
    config = {
        "amqp_port": "443",
        **{key: _scalar(value) for key, value in settings.items() if value or key == "display_name"},
        "identity_mapping_config_path": _scalar(str(directory / MAPPING)),
        "multi_user": "true",
    }
    made = {MAPPING: _MAPPING, TEMPLATE: _TEMPLATE, SCHEMA: _SCHEMA, ENVIRONMENT: _ENVIRONMENT}
    contents = {name: path.read_text() if (path := given.get(name)) else text for name, text in made.items()}
    return {CONFIG: _lines([f"{key}: {config[key]}" for key in sorted(config)]), **contents}


def _single_files(settings: Mapping[str, str | None]) -> dict[str, str]:
    head = [f"{key}: {_scalar(value)}" for key, value in sorted(settings.items()) if value or key == "display_name"]
    return {CONFIG: _lines([*head, "engine:", "  type: ProcessPoolEngine"])}


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _scalar(value: str | None) -> str:
    """YAML that needs no second thought: plain when it is a plain path or word, else in double quotes."""
    if value is None:
        return "null"
    plain = value.replace("/", "").replace("_", "").replace("-", "").replace(".", "").isalnum()
    return value if plain and value.isascii() and not value[:1].isdigit() and value[:1] != "-" else json.dumps(value)


def _write(endpoint: LocalEndpoint, files: Mapping[str, str]) -> None:
    """Private from the first moment; whatever exists already stays as it is."""
    try:
        endpoint.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        endpoint.directory.mkdir(mode=0o700)
    except FileExistsError:
        raise Conflict(
            why=f"Endpoint <{endpoint.name}> exists already: {endpoint.directory}. Remove it first with: "
            f"muster-endpoint delete {endpoint.name}"
        ) from None
    for name, content in files.items():
        file = os.open(endpoint.directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(content)
