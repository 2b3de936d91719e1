"""What the protocol calls exceptions: a channel's end, or a connection's. Codes and texts are RabbitMQ's."""

from __future__ import annotations


class Fault(Exception):
    """A reply code and a text for the peer, and which method provoked it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def wire_text(self) -> str:
        """The text, cut to what a short string holds."""
        return self.text.encode()[:250].decode(errors="ignore")


class ChannelFault(Fault):
    """Ends one channel; the connection lives on."""


class ConnectionFault(Fault):
    """Ends the connection."""


class ConnectionForced(ConnectionFault):
    """We end it, not the peer's mistake."""

    def __init__(self, why: str) -> None:
        super().__init__(320, f"CONNECTION_FORCED - {why}")


def no_queue(name: str) -> ChannelFault:
    return ChannelFault(404, f"NOT_FOUND - no queue '{name}' in vhost '/'")


def no_exchange(name: str) -> ChannelFault:
    return ChannelFault(404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")


def refused(resource: str, name: str, username: str) -> ChannelFault:
    return ChannelFault(
        403, f"ACCESS_REFUSED - access to {resource} '{name}' in vhost '/' refused for user '{username}'"
    )


def in_exclusive_use(name: str) -> ChannelFault:
    return ChannelFault(403, f"ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use")


def locked(name: str) -> ChannelFault:
    return ChannelFault(405, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'")


def precondition(why: str) -> ChannelFault:
    return ChannelFault(406, f"PRECONDITION_FAILED - {why}")


def unexpected_frame(why: str) -> ConnectionFault:
    return ConnectionFault(505, f"UNEXPECTED_FRAME - {why}")


def not_implemented(what: str) -> ConnectionFault:
    return ConnectionFault(540, f"NOT_IMPLEMENTED - {what}")
