"""The identity service's documents: userinfo, identities, consents, projects, policies."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from muster.errors import Invalid, NotPermitted
from muster.identity.bearer import Bearer
from muster.identity.documents import Documents
from muster.identity.forms import read_json, read_query
from muster.model.identity import Principal
from muster.model.policy import Policy
from muster.store.contract import IdentityStore
from muster.wire.rest import AUTH_SERVER, PROJECTS_SCOPE

LIMIT_LOOKUPS: Final = 100
DOMAIN: Final = re.compile(r"[A-Za-z0-9*?_.-]{1,253}")

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=4000)]
Names = Annotated[list[Name], Meta(max_length=100)]


class ProjectPart(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new project says about itself."""

    display_name: Name
    contact_email: Name | None = None
    admin_ids: Names | None = None
    admin_group_ids: Names | None = None


class NewProject(msgspec.Struct, kw_only=True):
    """POST /v2/api/projects."""

    project: ProjectPart


class PolicyPart(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new policy demands. An option that we could not enforce is refused, not forgotten."""

    project_id: UUID
    display_name: Name
    description: Text = ""
    high_assurance: bool = False
    authentication_assurance_timeout: Annotated[int, Meta(ge=1, le=366 * 86400)] | None = None
    required_mfa: bool = False
    domain_constraints_include: Names | None = None
    domain_constraints_exclude: Names | None = None


class NewPolicy(msgspec.Struct, kw_only=True):
    """POST /v2/api/policies."""

    policy: PolicyPart


class Api:
    """Each method is one route."""

    def __init__(self, store: IdentityStore, bearer: Bearer, documents: Documents) -> None:
        self._store = store
        self._bearer = bearer
        self._documents = documents

    async def userinfo(self, request: Request) -> Response:
        caller = await self._caller(request, "openid")
        return _answer(self._documents.userinfo(caller))

    async def identities(self, request: Request) -> Response:
        """By ids or by user names; nobody is created by being asked for."""
        caller = await self._caller(request)
        query = read_query(request)
        ids = [_uuid(text) for text in _listed(query.get("ids", ""))]
        usernames = _listed(query.get("usernames", ""))
        if len(ids) + len(usernames) > LIMIT_LOOKUPS:
            raise Invalid(why=f"ask for at most {LIMIT_LOOKUPS} identities at a time")
        own = {identity.id for identity in caller.identities}
        found = await self._store.identities(ids, usernames) if ids or usernames else []
        return _answer({"identities": [self._documents.identity(i, private=i.id in own) for i in found]})

    async def consents(self, request: Request) -> Response:
        """Scopes here depend on no others: there is never a consent to report."""
        caller = await self._caller(request)
        if not caller.is_any_of(frozenset({_uuid(request.path_params["id"])})):
            raise NotPermitted(why="these are another person's consents")
        return _answer({"consents": []})

    async def projects(self, request: Request) -> Response:
        caller = await self._caller(request, PROJECTS_SCOPE)
        found = await self._store.projects([identity.id for identity in caller.identities])
        return _answer({"projects": [_project(id_, msgspec.json.decode(document)) for id_, document in found]})

    async def add_project(self, request: Request) -> Response:
        caller = await self._caller(request, PROJECTS_SCOPE)
        new: NewProject = await read_json(request, NewProject)
        document = msgspec.to_builtins(new.project)
        document["admin_ids"] = document["admin_ids"] or [str(caller.id)]
        document["admin_group_ids"] = document["admin_group_ids"] or []
        id_ = uuid4()
        await self._store.add_project(id_, caller.id, msgspec.json.encode(document).decode())
        return _answer({"project": _project(id_, document)})

    async def add_policy(self, request: Request) -> Response:
        caller = await self._caller(request, PROJECTS_SCOPE)
        new: NewPolicy = await read_json(request, NewPolicy)
        part = new.policy
        if part.required_mfa:
            raise Invalid(why="required_mfa: this service has no second factor to demand")
        for domain in (*(part.domain_constraints_include or ()), *(part.domain_constraints_exclude or ())):
            if not DOMAIN.fullmatch(domain):
                raise Invalid(why=f"{domain!a} is no domain such as example.org or *.example.org")
        own = await self._store.projects([identity.id for identity in caller.identities])
        if part.project_id not in {id_ for id_, _ in own}:
            raise NotPermitted(why=f"{part.project_id} is no project of yours")
        include = part.domain_constraints_include
        policy = Policy(
            id=uuid4(),
            project=part.project_id,
            name=part.display_name,
            description=part.description,
            include=None if include is None else tuple(include),
            exclude=tuple(part.domain_constraints_exclude or ()),
            session_age_s=part.authentication_assurance_timeout,
            high_assurance=part.high_assurance,
        )
        await self._store.add_policy(policy)
        return _answer({"policy": self._documents.policy(policy)})

    async def _caller(self, request: Request, scope: str | None = None) -> Principal:
        caller = await self._bearer.principal(request.headers.get("authorization"), AUTH_SERVER)
        if scope is not None and scope not in caller.scopes:
            raise NotPermitted(why=f"this token lacks the scope {scope}")
        return caller


def _project(id_: UUID, document: dict[str, Any]) -> dict[str, Any]:
    return {"id": str(id_), "project_name": document["display_name"], **document}


def _answer(document: dict[str, Any]) -> Response:
    return JSONResponse(document, headers={"Cache-Control": "no-store"})


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(why=f"{text[:100]!a} is no id") from None
