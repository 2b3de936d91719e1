"""Engines run tasks: bytes in, bytes out."""

from muster.engine.contract import Deliver, Engine, Load

__all__ = ["Deliver", "Engine", "Load"]
