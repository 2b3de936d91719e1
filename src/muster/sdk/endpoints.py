"""The Client's methods about endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from muster.sdk.access import Caller
from muster.sdk.runtime import PROTOCOL_VERSION


class EndpointMethods(Caller):
    """What Client can ask about endpoints."""

    def get_endpoints(self, role: str = "owner") -> list[dict[str, Any]]:
        """The endpoints you own; with `role="any"` also those you may see."""
        if role not in ("owner", "any"):
            raise ValueError(f"role must be 'owner' or 'any', not {role!r}")
        return list(self.call("GET", f"/v2/endpoints?role={role}"))

    def get_endpoint_status(self, endpoint_uuid: UUID | str) -> dict[str, Any]:
        """`status` is online or offline, `details` the last report."""
        return dict(self.call("GET", f"/v2/endpoints/{endpoint_uuid}/status"))

    def get_endpoint_metadata(self, endpoint_uuid: UUID | str) -> dict[str, Any]:
        """What its administrator registered; `user_config_schema` says which options it takes."""
        return dict(self.call("GET", f"/v2/endpoints/{endpoint_uuid}"))

    def get_allowed_functions(self, endpoint_uuid: UUID | str) -> list[str] | None:
        """The only functions it runs; None when it runs any."""
        answer = self.call("GET", f"/v3/endpoints/{endpoint_uuid}/allowed_functions")
        return list(answer["functions"]) if answer["restricted"] else None

    def stop_endpoint(self, endpoint_uuid: UUID | str) -> dict[str, Any]:
        """End it and lock it for a while, so that nothing restarts it at once."""
        return dict(self.call("POST", f"/v3/endpoints/{endpoint_uuid}/lock"))

    def delete_endpoint(self, endpoint_uuid: UUID | str) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v2/endpoints/{endpoint_uuid}") or {})

    def register_endpoint(
        self,
        name: str,
        endpoint_id: UUID | str | None,
        metadata: Mapping[str, Any] | None = None,
        multi_user: bool | None = None,
        display_name: str | None = None,
        allowed_functions: Sequence[UUID | str] | None = None,
        auth_policy: UUID | str | None = None,
        subscription_id: UUID | str | None = None,
        public: bool | None = None,
        high_assurance: bool | None = None,
        admins: Sequence[UUID | str] | None = None,
    ) -> dict[str, Any]:
        """Register an endpoint, or again under its id; the answer holds its credentials, so keep it to yourself."""
        document: dict[str, Any] = {
            "endpoint_name": name,
            "public": bool(public),
            "high_assurance": bool(high_assurance),
            "metadata": {"endpoint_version": PROTOCOL_VERSION} | dict(metadata or {}),
        }
        optional = {
            "multi_user": multi_user or None,
            "display_name": display_name,
            "allowed_functions": None if allowed_functions is None else [str(item) for item in allowed_functions],
            "authentication_policy": None if auth_policy is None else str(auth_policy),
            "subscription_uuid": None if subscription_id is None else str(subscription_id),
            "admins": None if admins is None else [str(item) for item in admins],
        }
        document |= {key: value for key, value in optional.items() if value is not None}
        if endpoint_id is None:
            return dict(self.call("POST", "/v3/endpoints", document))
        return dict(self.call("PUT", f"/v3/endpoints/{endpoint_id}", document, repeatable=True))
