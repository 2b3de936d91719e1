"""What a serialisation strategy is."""

from __future__ import annotations

from typing import Any, ClassVar


class Strategy:
    """One way to turn a value into text and back; `identifier` stands on the first line of what it writes."""

    identifier: ClassVar[str]
    for_code: ClassVar[bool]

    @classmethod
    def write(cls, value: Any) -> str:
        """The body for this value; any exception means that this strategy cannot."""
        raise TypeError(f"{cls.__name__} is read only; it cannot write a {type(value).__name__}")

    @classmethod
    def read(cls, body: str) -> Any:
        """The value of a body; any exception means that it cannot be read here."""
        raise TypeError(f"{cls.__name__} cannot read {len(body)} characters")

    @classmethod
    def serialize(cls, value: Any) -> str:
        """The whole buffer: identifier, newline, body."""
        return f"{cls.identifier}\n{cls.write(value)}"

    @classmethod
    def deserialize(cls, buffer: str) -> Any:
        """The value of a whole buffer that carries this strategy's identifier."""
        identifier, _, body = buffer.partition("\n")
        if identifier != cls.identifier:
            raise ValueError(f"a buffer of {identifier[:8]!r} is none of {cls.__name__} ({cls.identifier!r})")
        return cls.read(body)
