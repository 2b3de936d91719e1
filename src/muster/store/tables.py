"""The schema, one for both databases. What migrations build must equal this; a test compares the two.

Identifiers are 16 bytes in SQLite and `uuid` in PostgreSQL. Text that a user wrote and nobody here reads (payloads,
results, tracebacks) is stored as bytes: PostgreSQL refuses a NUL in text, and one such result would block the rest.

`task` is narrow and stays; the wide part of a task lives in `pending` until its first result, so that looking for
unfinished work costs what is unfinished and not what was ever stored. `seq` is the order of submission: ids come from
clients, who may order them as they like. The three tables of tasks carry no foreign keys: they are written together in
one transaction, and the check would cost a lookup a row on the hottest path there is.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.types import TypeEngine


class Id(TypeDecorator[UUID]):
    """A UUID: 16 bytes in SQLite, the native type in PostgreSQL."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else LargeBinary(16))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else value.bytes

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        return value if value is None or dialect.name == "postgresql" else UUID(bytes=value)


class Opaque(TypeDecorator[str]):
    """Text stored as bytes: any string comes back as it went in, with NUL and half surrogates."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        del dialect
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else bytes(value).decode("utf-8", "surrogatepass")


def _seq() -> TypeEngine[int]:
    return BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only in a column of type INTEGER


metadata = MetaData()

setting = Table(
    "setting", metadata, Column("name", Text, primary_key=True), Column("value", LargeBinary, nullable=False)
)

identity = Table(
    "identity",
    metadata,
    Column("id", Id, primary_key=True),
    Column("username", Text, nullable=False),
    Column("username_folded", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("email", Text),
    Column("organization", Text),
    Column("issuer", Text, nullable=False),
    Column("issuer_name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("last_authentication_s", BigInteger),
    Column("password_hash", Text),
    Column("link_set", Id, nullable=False, index=True),
)

oauth_client = Table(
    "oauth_client",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("identity", Id, ForeignKey("identity.id")),
    Column("secret_sha256", LargeBinary),
    Column("redirect_uris", Text, nullable=False),
)

oauth_grant = Table(
    "oauth_grant",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("client", Id),
    Column("identity", Id),
    Column("scope", Text, nullable=False),
    Column("expires_at_s", Double, nullable=False, index=True),
    Column("issued_at_s", Double, nullable=False),
    Column("family", Id, index=True),
    Column("authenticated_at_s", Double),
    Column("data", Text, nullable=False),
    Column("user_code", Text, index=True),
)

project = Table(
    "project",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False, index=True),
    Column("document", Text, nullable=False),
)

policy = Table(
    "policy",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project", Id, ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("include", Text),
    Column("exclude", Text, nullable=False),
    Column("session_age_s", BigInteger),
    Column("high_assurance", Boolean, nullable=False),
)

function = Table(
    "function",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False),
    Column("name", Text, nullable=False),
    Column("code", Opaque, nullable=False),
    Column("description", Opaque),
    Column("public", Boolean, nullable=False),
    Column("grp", Id),
    Column("metadata", Text, nullable=False),
    Column("created_at_s", Double, nullable=False),
)

endpoint = Table(
    "endpoint",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("display_name", Text),
    Column("public", Boolean, nullable=False),
    Column("multi_user", Boolean, nullable=False),
    Column("allowed_functions", Text),
    Column("policy", Id),
    Column("metadata", Text, nullable=False),
    Column("seal_key", LargeBinary),
    Column("bundles", Boolean, nullable=False),
    Column("locked_until_s", Double, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("deleted_at_s", Double),
)

endpoint_admin = Table(
    "endpoint_admin",
    metadata,
    Column("endpoint", Id, ForeignKey("endpoint.id", ondelete="CASCADE"), primary_key=True),
    Column("identity", Id, primary_key=True, index=True),
    Column("place", Integer, nullable=False),
)

user_endpoint = Table(
    "user_endpoint",
    metadata,
    Column("id", Id, primary_key=True),
    Column("endpoint", Id, ForeignKey("endpoint.id"), nullable=False, index=True),
    Column("identity", Id, nullable=False),
    Column("config", Text, nullable=False),
    Column("values", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("bundles", Boolean, nullable=False),
    Column("created_at_s", Double, nullable=False),
)

report = Table(
    "report",
    metadata,
    Column("id", Id, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at_s", Double, nullable=False),
)

broker_account = Table(
    "broker_account",
    metadata,
    Column("username", Text, primary_key=True),
    Column("password_sha256", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Id, nullable=False, index=True),
    Column("expires_at_s", Double, index=True),
)

task_group = Table(
    "task_group",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Id, nullable=False),
    Column("bundles", Boolean, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("used_at_s", Double, nullable=False, index=True),
)

task = Table(
    "task",
    metadata,
    Column("seq", _seq(), primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False, unique=True),
    Column("grp", Id, nullable=False),
    Column("owner", Id, nullable=False),
    Column("endpoint", Id, nullable=False),
    Column("function", Id, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Index("ix_task_grp", "grp", "seq"),
)

pending = Table(
    "pending",
    metadata,
    Column("endpoint", Id, primary_key=True),
    Column("seq", _seq(), primary_key=True, autoincrement=False),
    Column("payload", Opaque, nullable=False),
    Column("resources", Opaque),
    Column("serializers", Opaque),
)

result = Table(
    "result",
    metadata,
    Column("seq", _seq(), primary_key=True, autoincrement=False),
    Column("data", Opaque, nullable=False),
    Column("error_code", Opaque),
    Column("error_message", Opaque),
    Column("details", Opaque, nullable=False),
    Column("started_ns", BigInteger),
    Column("ended_ns", BigInteger),
    Column("completed_at_s", Double, nullable=False, index=True),
)
