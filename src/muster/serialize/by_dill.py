"""The one module that writes with dill; imported when C pickle has refused."""

# The file's name holds "dill" for a reason: dill asks the name of a pickler's module whether it is one of its own.

from __future__ import annotations

from io import BytesIO
from threading import RLock
from types import FunctionType
from typing import Any

import dill

from muster.serialize.pickling import PROTOCOL, is_local, reduce_shell, travelled


class _ByValue(dill.Pickler):  # type: ignore[misc] # dill has no types
    """Functions of modules that are not installed travel by value, as those of `__main__` do."""

    def __init__(self, out: BytesIO, *, recurse: bool) -> None:
        super().__init__(out, PROTOCOL, byref=False, recurse=recurse)
        self._copies: dict[int, FunctionType] = {}
        self._kept: list[FunctionType] = []  # ids stay unique only while the objects live
        self.renamed: dict[type, str] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if type(obj) is FunctionType and obj.__module__ != "__main__" and is_local(obj):
            obj = self._copy(obj)
        elif isinstance(obj, type) and id(obj) not in self.memo and is_local(obj):
            self._rename(obj)
        elif type(obj).__module__ == "muster.serialize.shell" and id(obj) not in self.memo:
            self.save_reduce(*reduce_shell(obj), obj=obj)
            return
        super().save(obj, save_persistent_id)

    def _rename(self, kind: type) -> None:
        """Dill writes a class by value exactly when it says that it is from `__main__`."""
        if kind.__module__ != "__main__":
            self.renamed[kind] = kind.__module__
            kind.__module__ = "__main__"
        travelled[kind.__qualname__] = kind

    def _copy(self, function: FunctionType) -> FunctionType:
        copy = self._copies.get(id(function))
        if copy is None:
            copy = FunctionType(
                function.__code__,
                function.__globals__,
                function.__name__,
                function.__defaults__,
                function.__closure__,
            )
            copy.__kwdefaults__ = function.__kwdefaults__
            copy.__dict__.update(function.__dict__)
            copy.__doc__, copy.__qualname__ = function.__doc__, function.__qualname__
            copy.__module__ = "__main__"
            self._copies[id(function)] = copy
            self._copies[id(copy)] = copy
            self._kept.append(function)
        return copy


def dumps(value: Any) -> bytes:
    """A pickle by value where needed: with the globals that functions use, or without if those cannot be pickled."""
    try:
        return _dumps(value, recurse=True)
    except Exception:  # noqa: BLE001 - a global that cannot be pickled may not be needed: the plain way decides
        return _dumps(value, recurse=False)


def _dumps(value: Any, *, recurse: bool) -> bytes:
    out = BytesIO()
    with _renaming:
        pickler = _ByValue(out, recurse=recurse)
        try:
            pickler.dump(value)
        finally:
            for kind, module in pickler.renamed.items():
                kind.__module__ = module
    return out.getvalue()


_renaming = RLock()
