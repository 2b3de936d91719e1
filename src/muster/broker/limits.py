"""How much one broker, one connection and one message may take."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the broker in one place; the defaults suit a service for thousands of endpoints."""

    connections: int = 8192
    connections_per_account: int = 256
    handshakes: int = 512  # connections that have not logged in yet; the oldest makes room
    channels: int = 255  # per connection
    consumers: int = 255  # per channel
    frame_bytes: int = 131_072  # whole frame, as negotiated
    handshake_frame_bytes: int = 16_384  # before somebody has logged in
    message_bytes: int = 64 * MIB  # per message, and for all unfinished messages of one connection
    memory_bytes: int = 1024 * MIB  # all queued messages together
    queue_bytes: int = 256 * MIB  # in one queue, of what the service itself sends and can send again
    unfinished_bytes: int = 128 * MIB  # announced by all connections of one account, and not yet whole
    delivery_buffer_bytes: int = 1 * MIB  # over this, a connection is given no more deliveries until it reads
    reply_buffer_bytes: int = 8 * MIB  # over this, nothing more is read from it either
    handshake_s: float = 10
    heartbeat_s: int = 30  # proposed; the client may choose less
    close_s: float = 2  # how long a peer may take to answer our close
    stalled_s: float = 60  # a peer that reads nothing for this long while we wait for it is dead
