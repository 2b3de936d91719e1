"""One client's connection: bytes in, frames out, and who may do what on it."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, cast

from pamqp import commands
from pamqp.base import Frame

from muster.broker import faults, frames, handshake
from muster.broker.channel import Channel
from muster.broker.handshake import Stage
from muster.broker.methods import HANDLERS
from muster.broker.permissions import Action, Resource, may_look
from muster.broker.pulse import Pulse
from muster.broker.writer import Writer
from muster.model.account import BrokerAccount

if TYPE_CHECKING:
    from muster.broker.server import Broker

log = logging.getLogger("muster.broker")

_ANSWERS_KEPT = 64  # permissions remembered per connection
_CLOSE = b"\x00\x0a\x00\x32"
_CLOSE_OK = b"\x00\x0a\x00\x33"


class Connection(asyncio.Protocol):
    """Reads frames until something holds it: a login being checked, a peer that does not read, memory used up."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.limits = broker.limits
        self.topology = broker.topology
        self.authorise = broker.authorise
        self.stage = Stage.GREETING
        self.username = ""
        self.account: BrokerAccount | None = None
        self.login: asyncio.Task[None] | None = None
        self.channels: dict[int, Channel] = {}
        self.own_queues: set[str] = set()
        self.frame_bytes = self.limits.frame_bytes
        self.channel_limit = self.limits.channels
        self.notices_cancel = False
        self.notices_blocked = False
        self.hears_refusal = False
        self.peer: object = None
        self._in = bytearray()
        self._holds: set[str] = set()
        self._reserved_bytes = 0
        self._confirming: set[Channel] = set()
        self._answers: set[tuple[str, str, str, str | None]] = set()
        self._told_blocked = False

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's has the methods and not the ancestor
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._transport = transport
        self._writer = Writer(
            transport,
            self.limits,
            before_flush=self._flush_confirms,
            hold=lambda: self.hold("unread"),
            room=self._feed,
        )
        self.send = self._writer.send
        self.has_room = self._writer.has_room
        self._pulse = Pulse(self, self._writer, self.limits.stalled_s)
        self.peer = transport.get_extra_info("peername")
        self._keep_alive()
        self._deadline = loop.call_later(self.limits.handshake_s, self._too_slow)
        self._broker.admit(self)

    def _keep_alive(self) -> None:
        """A peer may choose no heartbeats; then the kernel finds out whether it lives."""
        found = self._transport.get_extra_info("socket")
        if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def _too_slow(self) -> None:
        log.info("broker connection from %s did not finish its handshake in time", self.peer)
        self.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._deadline.cancel()
        self._pulse.stop()
        if self.login is not None:
            self.login.cancel()
        self.stage = Stage.CLOSED
        self._end_channels()
        self._in.clear()
        self._writer.drop()
        self._broker.forget(self)

    def abort(self) -> None:
        self._transport.abort()

    def pause_writing(self) -> None:
        self._writer.pause()

    def resume_writing(self) -> None:
        self._writer.resume()

    def _feed(self) -> None:
        """The peer has read: it is read again, and its consumers may be given more."""
        self.release("unread")
        for channel in list(self.channels.values()):
            channel.pump()

    def _flush_confirms(self) -> None:
        due, self._confirming = self._confirming, set()
        for channel in due:
            channel.flush_confirms()

    def hold(self, why: str) -> None:
        """Read nothing more until `release`; nested reasons add up."""
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds.add(why)

    def release(self, why: str) -> None:
        if why not in self._holds:
            return
        self._holds.remove(why)
        if not self._holds and not self._transport.is_closing():
            self._pulse.heard()
            self._transport.resume_reading()
            self._loop.call_soon(self._work)

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._holds)

    # -- reading

    def data_received(self, data: bytes) -> None:
        self._pulse.heard()
        if self.stage is Stage.CLOSED:
            return
        self._in += data
        self._work()

    def _work(self) -> None:
        if self.stage is Stage.CLOSED:
            return
        try:
            self._parse()
        except faults.ConnectionFault as fault:
            self.fail(fault)
        except Exception:  # one client's bytes must not end the process that serves all the others
            log.exception("broker connection of %r failed", self.username)
            self.fail(faults.ConnectionFault(541, "INTERNAL_ERROR"))

    def _parse(self) -> None:
        if self.stage is Stage.GREETING and not self._greeted():
            return
        buffer, at = self._in, 0
        view = memoryview(buffer)
        try:
            while not self._holds and self.stage is not Stage.CLOSED and len(buffer) - at >= frames.OVERHEAD:
                kind, number, size = frames.HEAD.unpack_from(buffer, at)
                end = at + frames.OVERHEAD + size
                if size > self._largest_frame() - frames.OVERHEAD:
                    raise faults.ConnectionFault(501, f"FRAME_ERROR - frame of {size} bytes is too large")
                if end > len(buffer):
                    break
                if buffer[end - 1] != 0xCE:
                    raise faults.ConnectionFault(501, "FRAME_ERROR - no frame end")
                payload = bytes(view[at + 7 : end - 1])
                at = end
                self._frame(kind, number, payload)
        finally:
            view.release()
            del buffer[:at]

    def _greeted(self) -> bool:
        if len(self._in) < len(frames.PROTOCOL_HEADER):
            return False
        if not self._in.startswith(frames.PROTOCOL_HEADER):
            self._in.clear()
            self.stage = Stage.CLOSED
            self._transport.write(frames.PROTOCOL_HEADER)  # says what we do speak
            self._transport.close()
            return False
        del self._in[: len(frames.PROTOCOL_HEADER)]
        self.stage = Stage.START
        self.send_method(handshake.start())
        return True

    def _largest_frame(self) -> int:
        return self.frame_bytes if self.stage >= Stage.VHOST else self.limits.handshake_frame_bytes

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == frames.HEARTBEAT:
            return
        if self.stage is Stage.CLOSING:
            self._while_closing(kind, number, payload)
        elif number == 0:
            if kind != frames.METHOD:
                raise faults.unexpected_frame("content on channel 0")
            handshake.on_method(self, frames.read_command(payload))
        elif self.stage is not Stage.OPEN:
            raise faults.ConnectionFault(504, "CHANNEL_ERROR - connection is not open")
        else:
            self._channel_frame(kind, number, payload)

    def _while_closing(self, kind: int, number: int, payload: bytes) -> None:
        """Everything but the end of it is ignored, as the protocol wants."""
        if kind != frames.METHOD or number != 0:
            return
        if payload[:4] == _CLOSE_OK:
            self._transport.close()
        elif payload[:4] == _CLOSE:
            self.peer_closes()

    def _channel_frame(self, kind: int, number: int, payload: bytes) -> None:
        channel = self.channels.get(number)
        if channel is None:
            self._without_channel(kind, number, payload)
        elif channel.closing:
            self._while_channel_closes(channel, kind, payload)
        else:
            try:
                self._channel_work(channel, kind, payload)
            except faults.ChannelFault as fault:
                channel.flush_confirms()
                channel.end()
                ids = (int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big"))
                class_id, method_id = ids if kind == frames.METHOD else (60, 40)
                channel.send(commands.Channel.Close(fault.code, fault.wire_text(), class_id, method_id))

    def _channel_work(self, channel: Channel, kind: int, payload: bytes) -> None:
        if kind == frames.BODY:
            channel.body(payload)
        elif kind == frames.HEADER:
            channel.header(payload)
        elif kind != frames.METHOD:
            raise faults.ConnectionFault(501, f"FRAME_ERROR - frame type {kind}")
        elif payload[:4] == frames.PUBLISH:
            channel.begin(frames.read_publish(payload))
        elif channel.mid_message:
            raise faults.unexpected_frame("expected content, got a method")
        elif payload[:4] == frames.ACK:
            tag, multiple = frames.read_ack(payload)
            channel.ack(tag, multiple=multiple)
        else:
            self._method(channel, frames.read_command(payload))

    def _method(self, channel: Channel, method: Frame) -> None:
        handler = HANDLERS.get(type(method))
        if handler is not None:
            handler(channel, method)
        elif isinstance(method, commands.Channel.Open):
            raise faults.ConnectionFault(504, "CHANNEL_ERROR - second 'channel.open' seen")
        elif not isinstance(method, commands.Channel.CloseOk):
            raise faults.not_implemented(method.name)

    def _without_channel(self, kind: int, number: int, payload: bytes) -> None:
        method = frames.read_command(payload) if kind == frames.METHOD else None
        if isinstance(method, commands.Channel.CloseOk):
            return
        if not isinstance(method, commands.Channel.Open):
            raise faults.ConnectionFault(504, "CHANNEL_ERROR - expected 'channel.open'")
        if number > self.channel_limit:
            raise faults.ConnectionFault(530, f"NOT_ALLOWED - channel {number} is over the limit")
        channel = self.channels[number] = Channel(self, number)
        channel.send(commands.Channel.OpenOk())

    def _while_channel_closes(self, channel: Channel, kind: int, payload: bytes) -> None:
        if kind != frames.METHOD:
            return
        method = frames.read_command(payload)
        if isinstance(method, commands.Channel.CloseOk):
            self.channels.pop(channel.number, None)
        elif isinstance(method, commands.Channel.Close):
            self.channels.pop(channel.number, None)
            channel.send(commands.Channel.CloseOk())

    # -- what handshake and channels need

    def send_method(self, method: Frame) -> None:
        self.send(frames.command(0, method))

    def beat_every(self, interval_s: int) -> None:
        self._pulse.start(interval_s)

    def opened(self) -> None:
        """530 when the account has too many connections already."""
        self._broker.welcome(self)
        self._deadline.cancel()
        self.stage = Stage.OPEN

    def confirm_soon(self, channel: Channel) -> None:
        self._confirming.add(channel)
        self._writer.flush_soon()

    def reserve(self, size: int) -> None:
        """Room for an unfinished message; all of them together are bounded as one is."""
        if size > 0 and self._reserved_bytes + size > self.limits.message_bytes:
            raise faults.ConnectionFault(506, "RESOURCE_ERROR - too many unfinished messages on this connection")
        self._broker.reserve(self.username, size)
        self._reserved_bytes += size

    def may(self, action: Action, resource: Resource, name: str, routing_key: str | None = None) -> bool:
        key = (action, resource, name, routing_key)
        if key in self._answers:
            return True
        if self.account is None or not self._broker.rule(self.account, action, resource, name, routing_key):
            return False
        if len(self._answers) >= _ANSWERS_KEPT:
            self._answers.clear()
        self._answers.add(key)
        return True

    def require(self, action: Action, resource: Resource, name: str) -> None:
        """403 unless the account may."""
        if not self.may(action, resource, name):
            raise faults.refused(resource, name, self.username)

    def require_topic(self, exchange: str, routing_key: str) -> None:
        """403 unless the account may use this routing key."""
        if not self.may("write", "topic", exchange, routing_key):
            raise faults.ChannelFault(
                403,
                f"ACCESS_REFUSED - access to topic '{routing_key}' in exchange '{exchange}' in vhost '/'"
                f" refused for user '{self.username}'",
            )

    def require_look(self, resource: Resource, name: str) -> None:
        if self.account is None or not may_look(self.account, resource, name, rule=self._broker.rule):
            raise faults.refused(resource, name, self.username)

    # -- memory

    def hold_for_memory(self) -> bool:
        """Memory is used up: stop reading a mere publisher (True: its message is taken). One that also reads
        queues must be read on, for its acknowledgements free memory (False).
        """
        if any(channel.consumers or channel.unacked for channel in self.channels.values()):
            return False
        self.hold("memory")
        return True

    def pressure(self, *, full: bool) -> None:
        """Memory is used up, or free again."""
        if self.notices_blocked and full != self._told_blocked:
            self._told_blocked = full
            blocked = commands.Connection.Blocked("low on memory") if full else commands.Connection.Unblocked()
            self.send_method(blocked)
        if not full:
            self.release("memory")

    # -- the end

    def peer_closes(self) -> None:
        self._end_channels()
        self.send_method(commands.Connection.CloseOk())
        self._writer.flush()
        self.stage = Stage.CLOSED
        self._transport.close()

    def fail(self, fault: faults.ConnectionFault) -> None:
        """Tell the peer why, and close; a peer that does not answer is cut off."""
        if self.stage >= Stage.CLOSING:
            return
        log.info("closing broker connection of %r from %s: %s", self.username, self.peer, fault.text)
        silent = self.stage in (Stage.GREETING, Stage.START, Stage.LOGIN) and not self.hears_refusal
        self._flush_confirms()
        self.stage = Stage.CLOSING
        self._end_channels()
        self._in.clear()
        if silent:
            self._transport.close()
        else:
            self.send_method(commands.Connection.Close(fault.code, fault.wire_text(), 0, 0))
            self._writer.flush()
        self._deadline.cancel()
        self._deadline = self._loop.call_later(self.limits.close_s, self.abort)
        for why in tuple(self._holds):
            self.release(why)

    def _end_channels(self) -> None:
        for channel in list(self.channels.values()):
            channel.end()
        self.channels.clear()
        for name in self.own_queues:
            queue = self.topology.queues.get(name)
            if queue is not None and queue.owner is self:
                self.topology.delete_queue(queue)
        self.own_queues.clear()
