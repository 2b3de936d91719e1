"""Between rows and the nouns of `muster.model`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping

from muster.errors import Conflict
from muster.model.account import AccountKind, BrokerAccount
from muster.model.endpoint import Endpoint, EndpointKind, UserEndpoint, UserEndpointKey
from muster.model.function import Function
from muster.model.identity import Identity
from muster.model.policy import Policy
from muster.model.task import Outcome, Task, TaskGroup
from muster.store.contract import Grant, OAuthClient

Fields = RowMapping


def fold(username: str) -> str:
    """Two usernames are one if this is equal; the same in every database and locale."""
    return username.casefold()


def pack(text: str | None) -> bytes | None:
    """See `muster.store.tables.Opaque`."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


def unpack(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogatepass")


def pack_names(names: Sequence[str]) -> bytes | None:
    return json.dumps(names).encode() if names else None


def to_task(
    id_: UUID,
    group: UUID,
    owner: UUID,
    endpoint: UUID,
    function: UUID,
    payload: bytes | None,
    resources: bytes | None,
    serializers: bytes | None,
    created_at_s: float,
) -> Task:
    """A finished task has lost its payload: nobody needs it any more."""
    names = tuple(json.loads(serializers)) if serializers else ()
    return Task(id_, group, owner, endpoint, function, unpack(payload) or "", unpack(resources), names, created_at_s)


def to_outcome(
    task: UUID,
    data: bytes,
    code: bytes | None,
    message: bytes | None,
    details: bytes,
    started_ns: int | None,
    ended_ns: int | None,
    completed_at_s: float,
) -> Outcome:
    error = None if code is None else (unpack(code) or "", unpack(message) or "")
    return Outcome(task, unpack(data) or "", error, unpack(details) or "", started_ns, ended_ns, completed_at_s)


def distinct(calls: Sequence[Sequence[Task]]) -> dict[UUID, Task]:
    """Each id once, in order of submission; Conflict when two tasks claim one id."""
    tasks = {task.id: task for call in calls for task in call}
    if len(tasks) < sum(map(len, calls)):
        for call in calls:
            for task in call:
                other = tasks[task.id]
                same_call(task, other.group, other.owner, other.function)
    return tasks


def same_call(task: Task, group: UUID, owner: UUID, function: UUID) -> None:
    """Conflict unless the stored task is this one, repeated."""
    if (task.owner, task.group, task.function) != (owner, group, function):
        raise Conflict(f"{task.id} is stored for {owner}", why=f"The task id {task.id} is taken by another task.")


def new_ids(calls: Sequence[Sequence[Task]], new: set[UUID]) -> list[list[UUID]]:
    """Deal the new ids out to the calls; one that came twice is new for the first."""
    if len(new) == sum(map(len, calls)):
        return [[task.id for task in call] for call in calls]
    answers = []
    for call in calls:
        answer = []
        for task in call:
            if task.id in new:
                new.discard(task.id)
                answer.append(task.id)
        answers.append(answer)
    return answers


def to_identity(row: Fields) -> Identity:
    return Identity(
        row["id"],
        row["username"],
        row["name"],
        row["email"],
        row["organization"],
        row["issuer"],
        row["issuer_name"],
        row["status"],
        row["last_authentication_s"],
    )


def to_client(row: Fields) -> OAuthClient:
    return OAuthClient(
        row["id"], row["name"], row["identity"], row["secret_sha256"], tuple(json.loads(row["redirect_uris"]))
    )


def from_grant(grant: Grant) -> dict[str, Any]:
    data = json.loads(grant.data) if grant.kind == "device" else {}
    return {
        "digest": grant.digest,
        "kind": grant.kind,
        "client": grant.client,
        "identity": grant.identity,
        "scope": grant.scope,
        "expires_at_s": grant.expires_at_s,
        "issued_at_s": grant.issued_at_s,
        "family": grant.family,
        "authenticated_at_s": grant.authenticated_at_s,
        "data": grant.data,
        "user_code": data.get("user_code"),
    }


def to_grant(row: Fields) -> Grant:
    return Grant(
        row["digest"],
        row["kind"],
        row["client"],
        row["identity"],
        row["scope"],
        row["expires_at_s"],
        row["issued_at_s"],
        row["family"],
        row["authenticated_at_s"],
        row["data"],
    )


def to_policy(row: Fields) -> Policy:
    return Policy(
        row["id"],
        row["project"],
        row["name"],
        row["description"],
        None if row["include"] is None else tuple(json.loads(row["include"])),
        tuple(json.loads(row["exclude"])),
        row["session_age_s"],
        row["high_assurance"],
    )


def to_function(row: Fields) -> Function:
    return Function(
        row["id"],
        row["owner"],
        row["name"],
        row["code"],
        row["description"],
        row["public"],
        row["grp"],
        row["metadata"],
        row["created_at_s"],
    )


def from_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    allowed = endpoint.allowed_functions
    return {
        "id": endpoint.id,
        "owner": endpoint.owner,
        "name": endpoint.name,
        "kind": endpoint.kind.value,
        "display_name": endpoint.display_name,
        "public": endpoint.public,
        "multi_user": endpoint.multi_user,
        "allowed_functions": None if allowed is None else json.dumps([str(id_) for id_ in allowed]),
        "policy": endpoint.policy,
        "metadata": endpoint.metadata,
        "seal_key": endpoint.seal_key,
        "bundles": endpoint.bundles,
        "locked_until_s": endpoint.locked_until_s,
        "created_at_s": endpoint.created_at_s,
    }


def to_endpoint(row: Fields, admins: Iterable[UUID]) -> Endpoint:
    allowed = row["allowed_functions"]
    return Endpoint(
        row["id"],
        row["owner"],
        row["name"],
        EndpointKind(row["kind"]),
        row["display_name"],
        row["public"],
        row["multi_user"],
        None if allowed is None else tuple(UUID(id_) for id_ in json.loads(allowed)),
        row["policy"],
        tuple(admins),
        row["metadata"],
        row["seal_key"],
        row["bundles"],
        row["locked_until_s"],
        row["created_at_s"],
    )


def to_user_endpoint(row: Fields) -> UserEndpoint:
    key = UserEndpointKey(row["endpoint"], row["identity"], row["config"])
    return UserEndpoint(key, row["values"], row["runtime"], row["bundles"], row["created_at_s"])


def to_account(row: Fields) -> BrokerAccount:
    return BrokerAccount(
        row["username"], row["password_sha256"], AccountKind(row["kind"]), row["subject"], row["expires_at_s"]
    )


def to_group(row: Fields) -> TaskGroup:
    return TaskGroup(row["id"], row["owner"], row["bundles"], row["created_at_s"])
