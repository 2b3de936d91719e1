"""How identities, projects and policies look on the wire."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from muster.model.identity import Identity, Principal
from muster.model.policy import Policy

PROVIDER_NAME = "Muster accounts"


class Documents:
    """`provider` stands for the local accounts of this service wherever a document names an identity provider."""

    def __init__(self, provider: UUID) -> None:
        self._provider = str(provider)

    def identity(self, identity: Identity, *, private: bool) -> dict[str, Any]:
        """One identity; `private` is for its owner: others do not learn the e-mail address."""
        return {
            "id": str(identity.id),
            "username": identity.username,
            "name": identity.name or identity.username,
            "email": identity.email if private else None,
            "organization": identity.organization,
            "identity_provider": identity.issuer or self._provider,
            "identity_type": "login",
            "status": identity.status,
        }

    def userinfo(self, person: Principal) -> dict[str, Any]:
        """The document of `/v2/oauth2/userinfo`, and most claims of an id_token."""
        first = person.identity
        return {
            "sub": str(first.id),
            "preferred_username": first.username,
            "name": first.name or first.username,
            "email": first.email,
            "organization": first.organization,
            "identity_provider": first.issuer or self._provider,
            "identity_provider_display_name": first.issuer_name or PROVIDER_NAME,
            "last_authentication": first.last_authentication_s,
            "identity_set": [self._member(identity) for identity in person.identities],
        }

    def _member(self, identity: Identity) -> dict[str, Any]:
        return {
            **self.identity(identity, private=True),
            "sub": str(identity.id),
            "identity_provider_display_name": identity.issuer_name or PROVIDER_NAME,
            "last_authentication": identity.last_authentication_s,
        }

    @staticmethod
    def policy(policy: Policy) -> dict[str, Any]:
        document: dict[str, Any] = {
            "id": str(policy.id),
            "project_id": str(policy.project),
            "display_name": policy.name,
            "description": policy.description,
            "high_assurance": policy.high_assurance,
        }
        if policy.session_age_s is not None:
            document["authentication_assurance_timeout"] = policy.session_age_s
        if policy.include is not None:
            document["domain_constraints_include"] = list(policy.include)
        if policy.exclude:
            document["domain_constraints_exclude"] = list(policy.exclude)
        return document
