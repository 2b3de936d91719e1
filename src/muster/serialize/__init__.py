"""Functions, arguments and results as text (docs/protocol.md). Nothing here imports dill until it must."""

from muster.serialize.concretes import (
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    DillDataBase64,
    JSONData,
    PickleCode,
    PureSourceDill,
    PureSourceTextInspect,
)
from muster.serialize.serializer import Serializer
from muster.serialize.strategy import Strategy

__all__ = [
    "AllCodeStrategies",
    "AllDataStrategies",
    "CombinedCode",
    "DillCode",
    "DillCodeSource",
    "DillCodeTextInspect",
    "DillDataBase64",
    "JSONData",
    "PickleCode",
    "PureSourceDill",
    "PureSourceTextInspect",
    "Serializer",
    "Strategy",
]
