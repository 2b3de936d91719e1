"""Functions a Client has met: packed once per function, registered once per content."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from muster.sdk.batching import Code

if TYPE_CHECKING:
    from muster.serialize import Serializer


class Functions:
    """Safe from many threads. The same content is registered once, however often the function is defined again."""

    def __init__(self, register: Callable[[Any, str], str]) -> None:
        self._register = register  # (function, its packed code) -> id
        self._by_object: WeakKeyDictionary[Any, tuple[object, Code]] = WeakKeyDictionary()
        self._by_content: dict[bytes, Code] = {}
        self._lock = threading.Lock()
        self._registering = threading.Lock()

    def code_of(self, function: Any, serializer: Serializer) -> Code:
        """Its place; packing errors are raised here, the registration is left to whoever sends."""
        plain = isinstance(function, FunctionType)  # anything else may change between two submissions
        if plain:
            with self._lock:
                met = self._by_object.get(function)
            if met is not None and met[0] in (serializer, None):
                return met[1]
        packed = serializer.pack_function(function)
        digest = sha256(packed.encode()).digest()
        with self._lock:
            code = self._by_content.get(digest)
            if code is None:
                code = self._by_content[digest] = Code(register=lambda: self._register(function, packed))
            if plain:
                self._by_object[function] = (serializer, code)
        return code

    def id_of(self, code: Code) -> str:
        """Its id at the service, registering it now if need be; a failure is this call's alone."""
        if code.id is None:
            with self._registering:
                if code.id is None:
                    assert code.register is not None
                    code.id = code.register()
                    code.register = None  # it holds the function
        return code.id

    def remember(self, function: Any, function_id: str) -> None:
        """From now on this function stands for that id, whatever its content."""
        if not isinstance(function, FunctionType):
            raise TypeError("only a plain function can be tied to the id it was registered with")
        with self._lock:
            self._by_object[function] = (None, Code(id=function_id))


def function_meta() -> dict[str, str]:
    """What a registration says about where the code was packed."""
    import muster

    return {
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "sdk_version": f"muster {muster.__version__}",
    }
