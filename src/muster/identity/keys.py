"""The key that signs id_tokens. RSA, and the first of the set: official clients look at no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import RSAKey

from muster.store.contract import Store

ALGORITHM: Final = "RS512"
SIZE_BITS: Final = 2048
SETTING: Final = "identity.signing_key"


class SigningKey:
    """Made at the first start, kept in the store, the same in every process of the service."""

    def __init__(self, key: RSAKey) -> None:
        self._key = key
        self._kid = key.thumbprint()

    @classmethod
    async def open(cls, store: Store) -> SigningKey:
        fresh = await asyncio.to_thread(RSAKey.generate_key, SIZE_BITS)
        kept = await store.setting(SETTING, fresh.as_pem(private=True))
        return cls(RSAKey.import_key(kept))

    def public_set(self) -> dict[str, Any]:
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "use": "sig", "alg": ALGORITHM, "kid": self._kid}]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        return jwt.encode({"alg": ALGORITHM, "kid": self._kid}, dict(claims), self._key, algorithms=[ALGORITHM])
