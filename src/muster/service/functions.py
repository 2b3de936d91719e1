"""Functions: opaque code under an id, and a bounded memory of what was used last."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from muster.errors import FunctionNotFound, Invalid, NotPermitted
from muster.model.function import Function
from muster.model.identity import Principal
from muster.service.reading import uuid_of
from muster.store.contract import ComputeStore
from muster.wire.packing import pack
from muster.wire.rest import FunctionRegistration

_OVERHEAD_BYTES = 500  # of one remembered function beside its code


class Functions:
    """Registers, shows, deletes; `find` answers from memory where it can."""

    def __init__(self, store: ComputeStore, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._known: OrderedDict[UUID, Function] = OrderedDict()

    async def register(self, caller: Principal, asked: FunctionRegistration) -> UUID:
        if not asked.function_name or len(asked.function_name) > 1024:
            raise Invalid(why="function_name: give it between 1 and 1024 characters")
        code = asked.function_code if asked.serialized else wrap_source(asked.function_name, asked.function_code)
        if not code or "\x00" in code:
            raise Invalid(why="function_code: empty, or no text")
        function = Function(
            id=uuid4(),
            owner=caller.id,
            name=asked.function_name,
            code=code,
            description=asked.description,
            public=asked.public,
            group=uuid_of(asked.group, "group") if asked.group else None,
            metadata=json.dumps(asked.meta),
            created_at_s=time.time(),
        )
        await self._store.add_function(function)
        self._remember(function)
        return function.id

    async def find(self, id_: UUID) -> Function | None:
        known = self._known.get(id_)
        if known is not None:
            self._known.move_to_end(id_)
            return known
        function = await self._store.function(id_)
        if function is not None:
            self._remember(function)
        return function

    async def find_all(self, ids: Iterable[UUID]) -> list[Function]:
        found = []
        for id_ in ids:
            function = await self.find(id_)
            if function is None:
                raise FunctionNotFound(function=id_)
            found.append(function)
        return found

    async def show(self, caller: Principal, id_: UUID) -> dict[str, Any]:
        function = await self.find(id_)
        if function is None or not (function.public or caller.is_any_of(frozenset((function.owner,)))):
            raise FunctionNotFound(function=id_)
        return {
            "function_uuid": str(function.id),
            "function_name": function.name,
            "function_code": function.code,
            "description": function.description,
            "metadata": json.loads(function.metadata),
        }

    async def delete(self, caller: Principal, id_: UUID) -> None:
        function = await self._store.function(id_)
        if function is None:
            raise FunctionNotFound(function=id_)
        if not caller.is_any_of(frozenset((function.owner,))):
            if function.public:
                raise NotPermitted(why=f"function {id_} is not yours")
            raise FunctionNotFound(function=id_)
        await self._store.delete_function(id_)
        self._forget(id_)

    def _remember(self, function: Function) -> None:
        self._forget(function.id)
        self._known[function.id] = function
        self._held_bytes += _size(function)
        while self._held_bytes > self._limit_bytes and len(self._known) > 1:
            self._forget(next(iter(self._known)))

    def _forget(self, id_: UUID) -> None:
        function = self._known.pop(id_, None)
        if function is not None:
            self._held_bytes -= _size(function)


def wrap_source(name: str, source: str) -> str:
    """Plain Python source as the packed buffer that a worker reads (`serialized: false`)."""
    if not name.isidentifier():
        raise Invalid(why=f"function_name: {name[:60]!r} is not a Python name")
    return pack([f"st\n{name}:{source}"])


def _size(function: Function) -> int:
    return len(function.code) + len(function.metadata) + _OVERHEAD_BYTES
