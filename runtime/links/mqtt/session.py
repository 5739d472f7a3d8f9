"""One connection of one paho client to a broker, driven by the event loop.

Traps this file is built around: a paho client that reconnects resends what its last connection left behind and
forgets its window, so every connection gets a client of its own; an unread SUBACK may carry a refusal.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
from paho.mqtt.client import MQTT_LOG_ERR, Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts.messages import MAX_MESSAGE_BYTES
from runtime.links.process.within import within
from runtime.links.trust.tls import told

log = logging.getLogger(__name__)

MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + (64 << 10)
"""What a broker must take: the largest message plus its topic and properties."""

OUT_WINDOW = 64
"""Messages that wait for the broker's word at a time, at most."""

ANSWER_TIMEOUT_S = 10.0


Over = Callable[[bool], None]
"""Told whether the broker has it, or it was given up."""


def nothing(_: bool) -> None:
    """Nobody wants to know."""


class Outgoing(msgspec.Struct, frozen=True):
    """`over` is called once, when there is no more to be done for it."""

    topic: str
    payload: bytes
    retain: bool
    qos: int
    over: Over = nothing


class ClosedEarly(ConnectionError):  # noqa: N818 - it names what happened
    """The broker took the connection and ended it before it had answered."""


class Session:
    """One connection. `closed` ends with the reason; all callbacks run on the loop once `attach` was called."""

    def __init__(self, client: Client, deliver: Callable[[Session, MQTTMessage], None], drained: Callable[[], None]):
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._deliver = deliver
        self._drained = drained
        self._subacks: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self.accepted: asyncio.Future[ReasonCode] = self._loop.create_future()
        self.closed: asyncio.Future[ReasonCode] = self._loop.create_future()
        self.unconfirmed: dict[int, Outgoing] = {}
        self._trouble = ""
        client.on_log = self._on_log
        self.window = OUT_WINDOW
        self.max_packet_bytes = MAX_PACKET_BYTES

    def attach(self) -> None:
        """Hands the connected socket to the event loop."""
        client, loop = self._client, self._loop
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_socket_register_write
        client.on_socket_unregister_write = self._on_socket_unregister_write
        sock = client.socket()
        if sock is None:
            raise ClosedEarly(told(self._trouble) if self._trouble else "the connection was lost at once")
        # Small messages one after another: else each waits up to 40 ms for the acknowledgement of the one before.
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(sock, self._read)
        if client.want_write():
            loop.add_writer(sock, client.loop_write)

    def _read(self) -> None:
        try:
            self._client.loop_read()
            while isinstance(sock := self._client.socket(), ssl.SSLSocket) and sock.pending():
                self._client.loop_read()  # what TLS has decrypted already makes no socket readable
        except Exception:
            log.exception("mqtt: the broker sent what cannot be read; connecting again")
            self.abandon()

    async def keep_alive(self, interval_s: float) -> None:
        """Pings, and notices a silent broker; ends with the connection."""
        while not self.closed.done():
            await asyncio.wait([self.closed], timeout=interval_s)
            self._client.loop_misc()

    def publish(self, message: Outgoing) -> None:
        if len(message.payload) + len(message.topic) + 128 > self.max_packet_bytes:
            log.error("mqtt: %s has %d bytes, over the broker's limit: dropped", message.topic, len(message.payload))
            message.over(False)
            return
        info = self._client.publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.unconfirmed[info.mid] = message
        else:
            log.warning("mqtt: could not send %s: %s", message.topic, info.rc.name)

    async def subscribe(self, filters: list[tuple[str, int]]) -> None:
        """Returns when the broker has answered, and logs refusals. Raises ConnectionError when the link is lost."""
        rc, mid = self._client.subscribe(filters)
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise ConnectionError(f"subscribe failed: {rc.name}")
        answer: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._subacks[mid] = answer
        for (topic_filter, _), code in zip(filters, await within(answer, ANSWER_TIMEOUT_S), strict=False):
            if code.is_failure:
                log.error("mqtt: the broker refused the subscription to %s: %s", topic_filter, code)

    def acknowledge(self, message: MQTTMessage) -> None:
        if not self.closed.done():
            self._client.ack(message.mid, message.qos)

    def disconnect(self) -> None:
        self._client.disconnect()

    def abandon(self) -> None:
        """Drops the connection without a DISCONNECT, so that the broker sends the will."""
        sock = self._client.socket()
        if sock is not None and sock.fileno() >= 0:
            self._client.on_socket_close = None
            self._client.on_socket_unregister_write = None
            self._on_socket_close(self._client, None, sock)
            sock.close()
        self._end(ReasonCode(PacketTypes.DISCONNECT, "Unspecified error"))

    def _on_connect(
        self, _c: Client, _u: Any, _f: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._client.on_log = None
        self.window = min(OUT_WINDOW, getattr(properties, "ReceiveMaximum", OUT_WINDOW))
        self.max_packet_bytes = min(MAX_PACKET_BYTES, getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES))
        if not self.accepted.done():
            self.accepted.set_result(reason)

    def _on_log(self, _c: Client, _u: Any, level: int, text: str) -> None:
        """Why a broker ends a connection before it has answered, as in TLS 1.3, is in paho's log and nowhere else."""
        if level == MQTT_LOG_ERR:
            self._trouble = text

    def _on_disconnect(
        self, _c: Client, _u: Any, _f: DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        self._end(reason)

    def _on_message(self, _c: Client, _u: Any, message: MQTTMessage) -> None:
        self._deliver(self, message)

    def _on_subscribe(self, _c: Client, _u: Any, mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        answer = self._subacks.pop(mid, None)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def _on_publish(self, _c: Client, _u: Any, mid: int, reason: ReasonCode, _p: Properties | None) -> None:
        message = self.unconfirmed.pop(mid, None)
        if message is not None:
            if reason.is_failure:
                log.error("mqtt: the broker refused %s: %s", message.topic, reason)
            message.over(not reason.is_failure)
        self._loop.call_soon(self._drained)

    def _on_socket_register_write(self, _c: Client, _u: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._client.loop_write)

    def _on_socket_unregister_write(self, _c: Client, _u: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _on_socket_close(self, _c: Client, _u: Any, sock: Any) -> None:
        self._loop.remove_reader(sock)
        self._loop.remove_writer(sock)

    def _end(self, reason: ReasonCode) -> None:
        waiting: list[asyncio.Future[Any]] = [self.accepted, *self._subacks.values()]
        for answer in waiting:
            if not answer.done():
                why = told(self._trouble) if self._trouble else reason
                answer.set_exception(ClosedEarly(f"the broker closed the connection: {why}"))
                answer.exception()  # read once, so that nobody waiting for it is no warning
        self._subacks.clear()
        if not self.closed.done():
            self.closed.set_result(reason)
