"""Before a manager starts: whether its files can be used."""

from __future__ import annotations

from pathlib import Path

from muster.config import ManagerConfig, check_schema, check_template, read_environment, read_manager, read_schema
from muster.config.manager import CONFIG, ENVIRONMENT, SCHEMA, TEMPLATES
from muster.manager.rootlink import Site


def checked(site: Site) -> ManagerConfig:
    """The configuration, when all four files can be used; ConfigInvalid names the file, the place and the fix."""
    configuration = read_manager(site.config, file=CONFIG, directory=Path())
    read_environment(site.environment, ENVIRONMENT)
    check_template(site.template, str(configuration.user_config_template_path or TEMPLATES[0]))
    file = str(configuration.user_config_schema_path or SCHEMA)
    schema = read_schema(site.schema, file)
    if schema is not None:
        check_schema(schema, file)
    return configuration
