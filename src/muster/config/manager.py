"""A manager's config.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from muster.config.document import read_document, read_text
from muster.config.keys import Keys

CONFIG = "config.yaml"
TEMPLATES = ("user_config_template.yaml", "user_config_template.yaml.j2")
SCHEMA = "user_config_schema.json"
_UNHEEDED = {
    "audit_log_path": "every start and end of a user endpoint is in endpoint.log",
    "mu_child_ep_grace_period_s": "user endpoints get ten seconds to stop",
    "force_mu_allow_same_user": "root never starts a user endpoint for root, or for the agent's account",
}
PAM_SERVICE = "globus-compute-endpoint"
ENVIRONMENT = "user_environment.yaml"


@dataclass(frozen=True, slots=True)
class PamConfig:
    """Whether user endpoints get a PAM session, and under which service name."""

    enable: bool = False
    service_name: str = PAM_SERVICE


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """What the administrator decided. Field names are the keys of the file; periods are seconds."""

    directory: Path
    text: str = ""  # as read, for `parent_config` in templates and for the registration
    display_name: str | None = None
    multi_user: bool | None = None  # None: decided by whether the manager is privileged
    identity_mapping_config_path: Path | None = None
    user_config_template_path: Path | None = None
    user_config_schema_path: Path | None = None
    allowed_functions: tuple[UUID, ...] | None = None
    authentication_policy: UUID | None = None
    subscription_id: UUID | None = None
    admins: tuple[UUID, ...] = ()
    public: bool = False
    high_assurance: bool = False
    email: str | None = None
    amqp_port: int | None = None
    heartbeat_period: float = 30
    mu_child_ep_grace_period_s: float = 30
    audit_log_path: Path | None = None
    pam: PamConfig = PamConfig()
    debug: bool = False
    min_uid: int = 1000  # accounts below it are never become
    agent_user: str = "_muster"  # the account the unprivileged agent runs as
    force_mu_allow_same_user: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def template(self) -> Path:
        """The template's file: the configured one, else the first default that exists."""
        if self.user_config_template_path is not None:
            return self.user_config_template_path
        candidates = [self.directory / name for name in TEMPLATES]
        return next((path for path in candidates if path.exists()), candidates[0])

    @property
    def schema(self) -> Path:
        """The schema's file; it need not exist."""
        return self.user_config_schema_path or self.directory / SCHEMA

    @property
    def environment(self) -> Path:
        """The file of variables for user endpoints; it need not exist."""
        return self.directory / ENVIRONMENT


def load_manager(directory: Path) -> ManagerConfig:
    """Read `config.yaml` of a manager's directory."""
    path = directory / CONFIG
    return read_manager(read_text(path), file=str(path), directory=directory)


def read_manager(text: str, *, file: str, directory: Path) -> ManagerConfig:
    """The configuration in `text`; relative paths are meant from `directory`."""
    keys = Keys(read_document(text, file))
    keys.forbid("engine", "a manager runs no tasks: put the engine in user_config_template.yaml")
    config = _fields(keys, text, directory)
    keys.end()
    return config


def _fields(keys: Keys, text: str, directory: Path) -> ManagerConfig:
    ignore_foreign(keys)
    pam = _pam(keys)
    _warn_of_unheeded(keys, pam)
    return ManagerConfig(
        directory=directory,
        text=text,
        display_name=keys.text("display_name"),
        multi_user=None if keys.value("multi_user") is None else keys.flag("multi_user", default=False),
        identity_mapping_config_path=keys.file("identity_mapping_config_path", directory),
        user_config_template_path=keys.file("user_config_template_path", directory),
        user_config_schema_path=keys.file("user_config_schema_path", directory),
        allowed_functions=keys.uuids("allowed_functions"),
        authentication_policy=keys.uuid("authentication_policy"),
        subscription_id=keys.uuid("subscription_id"),
        admins=keys.uuids("admins") or (),
        public=keys.flag("public", default=False),
        high_assurance=keys.flag("high_assurance", default=False),
        email=keys.text("email"),
        amqp_port=keys.whole_or_none("amqp_port", least=1, most=65535),
        heartbeat_period=keys.number("heartbeat_period", 30, least=1, most=3600),
        mu_child_ep_grace_period_s=keys.number("mu_child_ep_grace_period_s", 30, least=0, most=3600),
        audit_log_path=keys.file("audit_log_path", directory),
        pam=pam,
        debug=keys.flag("debug", default=False),
        min_uid=keys.whole("min_uid", 1000, least=1),
        agent_user=_account(keys, "agent_user", "_muster"),
        force_mu_allow_same_user=keys.flag("force_mu_allow_same_user", default=False),
        warnings=tuple(keys.warnings),
    )


def ignore_foreign(keys: Keys) -> None:
    """Keys that official configurations carry and that mean nothing here."""
    keys.ignore("environment", "set MUSTER_SERVICE_URL to choose the service")
    keys.ignore("local_compute_services", "set MUSTER_SERVICE_URL to choose the service")
    keys.ignore("detach_endpoint", "the endpoint stays attached; run it under systemd (enable-on-boot)")


def _warn_of_unheeded(keys: Keys, pam: PamConfig) -> None:
    """An administrator must not believe in a protection that is not there."""
    given = {name: why for name, why in _UNHEEDED.items() if keys.value(name) is not None}
    if pam.enable:
        given["pam"] = "user endpoints get no PAM session here; limits of accounts come from groups and systemd slices"
    keys.warnings += [f"{keys.document.file}: {name} is ignored: {why}" for name, why in given.items()]


def _pam(keys: Keys) -> PamConfig:
    block = keys.block("pam")
    if block is None:
        return PamConfig()
    pam = PamConfig(
        enable=block.flag("enable", default=False),
        service_name=block.text("service_name") or PAM_SERVICE,
    )
    if "/" in pam.service_name:
        raise block.wrong("service_name", "it must be the name of a file in /etc/pam.d", value=pam.service_name)
    block.end()
    return pam


def _account(keys: Keys, name: str, default: str) -> str:
    value = keys.text(name, default) or default
    if not value.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise keys.wrong(name, "it must be the name of an account", value=value)
    return value
