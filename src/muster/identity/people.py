"""What an administrator does to accounts and clients, beside or without a running service."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import normalize
from uuid import UUID

from muster.errors import Invalid, NotFound
from muster.identity.passwords import Passwords
from muster.identity.secret import CLIENT, digest, new_id, new_secret
from muster.model.identity import Identity
from muster.store.contract import IdentityStore, OAuthClient

USERNAME: Final = re.compile(r"[^\s@\x00-\x1f\x7f]{1,128}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,118}[A-Za-z0-9])?")
CLIENT_DOMAIN: Final = "clients.muster"
LIMIT_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class NewClient:
    """The only moment at which the secret can be read."""

    client_id: UUID
    client_secret: str
    name: str
    identity: Identity


class People:
    """Accounts and clients of one store."""

    def __init__(self, store: IdentityStore) -> None:
        self._store = store
        self._passwords = Passwords(store)

    async def add(
        self,
        username: str,
        *,
        name: str = "",
        email: str | None = None,
        password: str | None = None,
        linked_to: str | None = None,
    ) -> Identity:
        """Conflict when the user name is taken; without a password nobody can log in with it yet."""
        _check(username, name, email)
        other = await self.find(linked_to) if linked_to is not None else None
        hashed = await self._passwords.hash(password) if password is not None else None
        added = await self._store.add_identity(Identity(new_id(), username, name, email), hashed)
        if other is not None:
            await self._store.link_identities(other.id, added.id)
        return added

    async def all(self) -> Sequence[Identity]:
        return await self._store.all_identities()

    async def linked(self, identity: Identity) -> Sequence[Identity]:
        return await self._store.linked_to(identity.id)

    async def set_password(self, username: str, password: str) -> tuple[Identity, int]:
        """Whoever knew the old one is out: sessions, codes and tokens end too, and are counted. Those of linked
        identities as well, for a login with one of them gives tokens in the name of the oldest.
        """
        identity = await self.find(username)
        await self._store.set_password(identity.id, await self._passwords.hash(password))
        person = [identity, *await self._store.linked_to(identity.id)]
        return identity, sum([await self._store.revoke_identity(each.id) for each in person])

    async def link(self, username: str, other: str) -> tuple[Identity, Identity]:
        """Both, and all linked to either, are one person from now on."""
        one, two = await self.find(username), await self.find(other)
        await self._store.link_identities(one.id, two.id)
        return one, two

    async def add_client(self, name: str, username: str | None = None) -> NewClient:
        """A service account: it acts as that identity, or as one of its own."""
        if not 0 < len(name) <= LIMIT_NAME:
            raise Invalid(why=f"a client's name has 1 to {LIMIT_NAME} characters")
        id_, secret = new_id(), new_secret(CLIENT)
        if username is not None:
            identity = await self.find(username)
        else:
            identity = await self._store.add_identity(Identity(new_id(), f"{id_}@{CLIENT_DOMAIN}", name))
        await self._store.add_client(OAuthClient(id_, name, identity.id, digest(secret)))
        return NewClient(id_, secret, name, identity)

    async def clients(self) -> Sequence[OAuthClient]:
        return await self._store.clients()

    async def names(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        return {identity.id: identity.username for identity in await self._store.identities(ids)}

    async def find(self, username: str) -> Identity:
        found = await self._store.identities([], [username])
        if not found:
            raise NotFound(thing="identity", name=username)
        return found[0]


def _check(username: str, name: str, email: str | None) -> None:
    if not USERNAME.fullmatch(username) or ".." in username.rpartition("@")[2]:
        raise Invalid(why=f"{username[:200]!a} is no user name such as harper@example.org")
    if not username.isprintable() or normalize("NFKC", username) != username:
        raise Invalid(why=f"{username[:200]!a} has characters that are invisible or look like others")
    if username.lower().endswith(f"@{CLIENT_DOMAIN}"):
        raise Invalid(why=f"{CLIENT_DOMAIN} is kept for service accounts")
    for what, value in (("name", name), ("e-mail address", email or "")):
        if len(value) > LIMIT_NAME or not value.isprintable():
            raise Invalid(why=f"the {what} has at most {LIMIT_NAME} printable characters")
