"""Durable queues between parties that are never all up at once: one contract, two brokers."""

from muster.transport.contract import Delivery, Outgoing, QueueState, Transport

__all__ = ["Delivery", "Outgoing", "QueueState", "Transport"]
