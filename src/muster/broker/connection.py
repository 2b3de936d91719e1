"""One client's connection: bytes in, frames out, and who may do what on it."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from pamqp import commands
from pamqp.base import Frame

from muster.broker import faults, frames, handshake
from muster.broker.channel import Channel
from muster.broker.handshake import Stage
from muster.broker.methods import HANDLERS
from muster.broker.permissions import Action, Resource, may_look
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
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._flush_due = False
        self._congested = False  # the transport holds more than the delivery mark
        self._starved = False  # a consumer was refused for lack of room
        self._holds: set[str] = set()
        self._reserved_bytes = 0
        self._confirming: set[Channel] = set()
        self._answers: set[tuple[str, str, str, str | None]] = set()
        self._told_blocked = False
        self._heartbeat_s = 0
        self._heard_at = self._sent_at = self._progress_at = 0.0
        self._unread_bytes = 0

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._heard_at = self._sent_at = self._progress_at = self._loop.time()
        self.peer = transport.get_extra_info("peername")
        self._keep_alive()
        mark = self.limits.delivery_buffer_bytes
        transport.set_write_buffer_limits(high=mark, low=mark // 4)
        self._deadline = self._loop.call_later(self.limits.handshake_s, self._too_slow)
        self._beat: asyncio.TimerHandle | None = None
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        if self._beat is not None:
            self._beat.cancel()
        if self.login is not None:
            self.login.cancel()
        self._end_channels()
        self.stage = Stage.CLOSED
        self._in.clear()
        self._out.clear()
        self._broker.forget(self)

    def abort(self) -> None:
        self._transport.abort()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self.release("unread")
        self._feed()

    def _feed(self) -> None:
        """There is room again: consumers may be given more."""
        self._starved = False
        for channel in list(self.channels.values()):
            channel.pump()

    # -- reading

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self.stage is Stage.CLOSED:
            return
        self._in += data
        self._work()

    def _work(self) -> None:
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
                channel.send(commands.Channel.Close(fault.code, _clipped(fault.text), class_id, method_id))

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
