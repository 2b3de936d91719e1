"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from muster.store.tables import Id, Opaque

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("setting", key("name", sa.Text), need("value", sa.LargeBinary))
    people()
    functions()
    endpoints()
    user_endpoints()
    tasks()
    if op.get_bind().dialect.name == "postgresql":
        for_postgresql()


def key(name: str, type_: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, primary_key=True, autoincrement=False)


def need(name: str, type_: Any, *rest: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, *rest, nullable=False)


def may(name: str, type_: Any, *rest: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, *rest, nullable=True)


def index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{columns[0]}", table, columns)


def people() -> None:
    op.create_table(
        "identity",
        key("id", Id),
        need("username", sa.Text),
        sa.Column("username_folded", sa.Text, nullable=False, unique=True),
        need("name", sa.Text),
        may("email", sa.Text),
        may("organization", sa.Text),
        need("issuer", sa.Text),
        need("issuer_name", sa.Text),
        need("status", sa.Text),
        may("last_authentication_s", sa.BigInteger),
        may("password_hash", sa.Text),
        need("link_set", Id),
    )
    index("identity", "link_set")
    op.create_table(
        "oauth_client",
        key("id", Id),
        need("name", sa.Text),
        may("identity", Id, sa.ForeignKey("identity.id")),
        may("secret_sha256", sa.LargeBinary),
        need("redirect_uris", sa.Text),
    )
    grants()
    op.create_table("project", key("id", Id), need("owner", Id), need("document", sa.Text))
    index("project", "owner")
    op.create_table(
        "policy",
        key("id", Id),
        need("project", Id, sa.ForeignKey("project.id")),
        need("name", sa.Text),
        need("description", sa.Text),
        may("include", sa.Text),
        need("exclude", sa.Text),
        may("session_age_s", sa.BigInteger),
        need("high_assurance", sa.Boolean),
    )


def grants() -> None:
    op.create_table(
        "oauth_grant",
        key("digest", sa.LargeBinary),
        need("kind", sa.Text),
        may("client", Id),
        may("identity", Id),
        need("scope", sa.Text),
        need("expires_at_s", sa.Double),
        need("issued_at_s", sa.Double),
        may("family", Id),
        may("authenticated_at_s", sa.Double),
        need("data", sa.Text),
        may("user_code", sa.Text),
    )
    index("oauth_grant", "expires_at_s")
    index("oauth_grant", "family")
    index("oauth_grant", "user_code")


def functions() -> None:
    op.create_table(
        "function",
        key("id", Id),
        need("owner", Id),
        need("name", sa.Text),
        need("code", Opaque),
        may("description", Opaque),
        need("public", sa.Boolean),
        may("grp", Id),
        need("metadata", sa.Text),
        need("created_at_s", sa.Double),
    )


def endpoints() -> None:
    op.create_table(
        "endpoint",
        key("id", Id),
        need("owner", Id),
        need("name", sa.Text),
        need("kind", sa.Text),
        may("display_name", sa.Text),
        need("public", sa.Boolean),
        need("multi_user", sa.Boolean),
        may("allowed_functions", sa.Text),
        may("policy", Id),
        need("metadata", sa.Text),
        may("seal_key", sa.LargeBinary),
        need("bundles", sa.Boolean),
        need("locked_until_s", sa.Double),
        need("created_at_s", sa.Double),
        may("deleted_at_s", sa.Double),
    )
    index("endpoint", "owner")
    op.create_table(
        "endpoint_admin",
        sa.Column("endpoint", Id, sa.ForeignKey("endpoint.id", ondelete="CASCADE"), primary_key=True),
        key("identity", Id),
        need("place", sa.Integer),
    )
    index("endpoint_admin", "identity")
    op.create_table("report", key("id", Id), need("state", sa.Text), need("at_s", sa.Double))


def user_endpoints() -> None:
    op.create_table(
        "user_endpoint",
        key("id", Id),
        need("endpoint", Id, sa.ForeignKey("endpoint.id")),
        need("identity", Id),
        need("config", sa.Text),
        need("values", sa.Text),
        need("runtime", sa.Text),
        need("bundles", sa.Boolean),
        need("created_at_s", sa.Double),
    )
    index("user_endpoint", "endpoint")
    op.create_table(
        "broker_account",
        key("username", sa.Text),
        need("password_sha256", sa.LargeBinary),
        need("kind", sa.Text),
        need("subject", Id),
        may("expires_at_s", sa.Double),
    )
    index("broker_account", "subject")
    index("broker_account", "expires_at_s")


def tasks() -> None:
    seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "task_group",
        key("id", Id),
        need("owner", Id),
        need("bundles", sa.Boolean),
        need("created_at_s", sa.Double),
        need("used_at_s", sa.Double),
    )
    index("task_group", "used_at_s")
    op.create_table(
        "task",
        sa.Column("seq", seq, primary_key=True, autoincrement=True),
        sa.Column("id", Id, nullable=False, unique=True),
        need("grp", Id),
        need("owner", Id),
        need("endpoint", Id),
        need("function", Id),
        need("created_at_s", sa.Double),
    )
    index("task", "grp", "seq")
    op.create_table(
        "pending",
        key("endpoint", Id),
        key("seq", seq),
        need("payload", Opaque),
        may("resources", Opaque),
        may("serializers", Opaque),
    )
    results(seq)


def results(seq: Any) -> None:
    op.create_table(
        "result",
        key("seq", seq),
        need("data", Opaque),
        may("error_code", Opaque),
        may("error_message", Opaque),
        need("details", Opaque),
        may("started_ns", sa.BigInteger),
        may("ended_ns", sa.BigInteger),
        need("completed_at_s", sa.Double),
    )
    index("result", "completed_at_s")


def for_postgresql() -> None:
    # Payloads and results are base64 or compressed already: trying again costs time and saves nothing.
    op.execute("ALTER TABLE pending ALTER COLUMN payload SET STORAGE EXTERNAL")
    op.execute("ALTER TABLE result ALTER COLUMN data SET STORAGE EXTERNAL")
    # Every row of `pending` dies young: a scan for unfinished work must not wade through the dead.
    op.execute("ALTER TABLE pending SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000)")
