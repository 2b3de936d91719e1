"""From a proved password to a person: the identity of record, and what a caller demanded of the login."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from authlib.oauth2.rfc6749.errors import InvalidRequestError

from muster.errors import Unauthenticated
from muster.identity.bearer import Bearer
from muster.identity.passwords import Passwords
from muster.model.identity import Identity, Principal
from muster.store.contract import IdentityStore

LIMIT_LISTED = 20


@dataclass(frozen=True, slots=True)
class Proof:
    """Which identity was proved, and when."""

    identity: Identity
    at_s: float


@dataclass(frozen=True, slots=True)
class Demands:
    """What an authorization request asks of the login itself (`session_required_*`, `prompt`)."""

    fresh: bool = False
    identities: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    second_factor: bool = False
    message: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Demands:
        return cls(
            fresh="login" in query.get("prompt", "").split(),
            identities=_listed(query, "session_required_identities"),
            domains=_listed(query, "session_required_single_domain"),
            policies=_listed(query, "session_required_policies"),
            second_factor=query.get("session_required_mfa", "").lower() == "true",
            message=query.get("session_message", "")[:500],
        )


class Logins:
    """Proves people, and finds the one identity that stands for all that are linked."""

    def __init__(self, store: IdentityStore, passwords: Passwords, bearer: Bearer) -> None:
        self._store = store
        self._passwords = passwords
        self._bearer = bearer

    async def with_password(self, username: str, password: str, address: str) -> Proof | None:
        """None when they do not fit; remembers when this identity was last proved."""
        id_ = await self._passwords.check(username, password, address)
        return None if id_ is None else await self.proved(id_)

    async def proved(self, id_: UUID) -> Proof:
        """Record that this identity has just been proved, by whatever means."""
        now_s = time.time()
        await self._store.touch_authentication(id_, int(now_s))
        identity = await self._store.identity(id_)
        if identity is None:
            raise Unauthenticated(why="the identity no longer exists")
        self._bearer.forget(person=identity)
        return Proof(identity, now_s)

    async def of_record(self, identity: Identity) -> Principal:
        """The oldest of a linked set stands for it, whichever was used to log in: clients refuse a changed identity."""
        linked = await self._store.linked_to(identity.id)
        first, *rest = sorted((identity, *linked), key=lambda each: each.id.int)
        return Principal(first, tuple(rest))

    async def unmet(self, demands: Demands, proof: Proof) -> str | None:
        """Why this proof does not satisfy the demands, for the person to read; None when it does."""
        if demands.second_factor:
            return "A second factor is demanded, and this service has none to offer."
        if demands.domains and proof.identity.domain.lower() not in {d.lower() for d in demands.domains}:
            return f"Log in with an identity from {' or '.join(demands.domains)}."
        person = await self.of_record(proof.identity)
        if demands.identities:
            wanted = {name.lower() for name in demands.identities}
            if not wanted & {str(proof.identity.id), proof.identity.username.lower()}:
                return f"Log in as {' or '.join([await self._shown(name) for name in demands.identities])}."
        for name in demands.policies:
            refusal = await self._refused_by(name, person)
            if refusal is not None:
                return refusal
        return None

    async def _refused_by(self, name: str, person: Principal) -> str | None:
        policy = await self._store.policy(_uuid(name))
        if policy is None:
            return f"There is no policy {name[:36]}."
        refusal = policy.refusal(person, time.time())
        return None if refusal is None else f"The policy {policy.name!r} is not met: {refusal}."

    async def _shown(self, name: str) -> str:
        found = await self._store.identities([_uuid(name)]) if "@" not in name else []
        return found[0].username if found else name[:200]


def _listed(query: Mapping[str, str], name: str) -> tuple[str, ...]:
    values = tuple(value.strip() for value in query.get(name, "").split(",") if value.strip())
    if len(values) > LIMIT_LISTED:
        raise InvalidRequestError(f"{name} lists more than {LIMIT_LISTED} values.")
    return values


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequestError(f"{text[:100]!a} is no id.") from None
