"""Runs tasks on a cluster, through Parsl's HighThroughputExecutor and its providers. Parsl is imported at start."""

from muster.engine.parsl.engine import ParslEngine

__all__ = ["ParslEngine"]
