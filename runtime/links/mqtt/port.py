"""The MQTT port: MQTT 5 over paho-mqtt, driven by asyncio, always reconnecting.

A handler that fails does not see its message again, since it would for ever. See `session` for paho's own traps.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contracts.errors import FoothillError
from contracts.messages import MAX_MESSAGE_BYTES
from runtime.links.mqtt.session import (
    ANSWER_TIMEOUT_S,
    MAX_PACKET_BYTES,
    OUT_WINDOW,
    ClosedEarly,
    Outgoing,
    Over,
    Session,
    nothing,
)
from runtime.links.process.within import within
from runtime.links.trust.tls import SYSTEM, TlsConfig, client_context, told

log = logging.getLogger(__name__)

Handler = Callable[[str, bytes], Awaitable[None] | None]
Callback = Callable[[], Awaitable[None] | None]
Will = tuple[str, bytes, bool]

_CONNECT_TIMEOUT_S = 5.0
_DRAIN_S = 1.0
_IN_WINDOW = 256
_MAX_WAITING = 10_000
_QUEUE_BYTES = 64 << 20
_FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
_LONGEST_FIGHT_PAUSE_S = 30.0
"""Two clients of one name take it from each other for ever: slowly, for the broker's sake and the logs'."""
_FIGHT = "the broker ended {} connections of {!r}, each soon after it began: does another process use this name?"
"""Mosquitto 2.0 does not say that a name was taken over; MQTT 5 has a reason code for it (3.1.4), which others send."""
_FEW = 5
_STEADY_S = 2.0
_TAKEN_OVER = 0x8E
_MOST_COMPLAINTS, _COMPLAINTS_S = 10, 10.0
_SHOWN = 200
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class _Route:
    """One subscription, and what has arrived for it: handled in order, one at a time."""

    def __init__(self, topic_filter: str, handler: Handler, qos: int) -> None:
        self.filter = topic_filter
        self.qos = qos
        self._handler = handler
        self._inbox: asyncio.Queue[tuple[Session, MQTTMessage]] = asyncio.Queue()
        self._complaints = 0
        self._complaints_until_s = 0.0

    def put(self, session: Session, message: MQTTMessage) -> bool:
        """False when the message was dropped: unacknowledged ones are bounded by the window, QoS 0 only here."""
        if message.qos == 0 and self._inbox.qsize() >= _MAX_WAITING:
            return False
        self._inbox.put_nowait((session, message))
        return True

    async def work(self) -> None:
        while True:
            session, message = await self._inbox.get()
            try:
                pending = self._handler(message.topic, bytes(message.payload))
                if inspect.isawaitable(pending):
                    await pending
            except (FoothillError, ValueError) as error:
                self._complain(message.topic, error)
            except Exception:
                log.exception("mqtt: the handler of %s failed on a message of %s", self.filter, message.topic[:_SHOWN])
            session.acknowledge(message)

    def _complain(self, topic: str, error: Exception) -> None:
        """Ten lines in ten seconds at most: who may publish must not be able to fill the disk with our complaints."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._complaints_until_s:
            if self._complaints > _MOST_COMPLAINTS:
                log.error("mqtt: %d more such messages on %s", self._complaints - _MOST_COMPLAINTS, self.filter)
            self._complaints, self._complaints_until_s = 0, now_s + _COMPLAINTS_S
        self._complaints += 1
        if self._complaints <= _MOST_COMPLAINTS:
            log.error("mqtt: the handler of %s failed on a message of %s: %s", self.filter, topic[:_SHOWN], error)


class MqttPort:
    """One client of one broker, for the life of a process. Call it from its event loop's thread only.

    Every connection starts clean: nothing is kept for a client that is away, so owners of retained state publish it
    again in `on_connect`. Messages arrive at least once, in order for each subscription; the filters of one port must
    not overlap. A message is acknowledged after its handler has returned or failed. The broker drops what is larger
    than `max_packet_bytes` before it gets here. `tls` is for `mqtts://`, and read anew for every connection. Between
    two attempts to find a broker that is away there are `longest_pause_s` at most. `queue_limit` and `queue_bytes`
    bound what waits for it.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        will: Will | None = None,
        keepalive_s: int = 10,
        queue_limit: int = 1000,
        queue_bytes: int = _QUEUE_BYTES,
        max_packet_bytes: int = MAX_PACKET_BYTES,
        tls: TlsConfig = SYSTEM,
        longest_pause_s: float = LONGEST_PAUSE_S,
        rng: random.Random | None = None,
    ) -> None:
        self._scheme, self._host, self._port, self._login = _parse(url)
        self._url = f"{self._scheme}://{self._host}:{self._port}"
        self._tls = tls
        self._client_id = client_id
        self._will = will
        self._keepalive_s = keepalive_s
        self._longest_pause_s = longest_pause_s
        self._rng = rng or random.Random()
        self._routes: dict[str, _Route] = {}
        self._callbacks: list[Callback] = []
        self._events: deque[Outgoing] = deque()
        self._events_bytes = 0
        self._queue_limit = queue_limit
        self._queue_bytes = queue_bytes
        self._max_packet_bytes = max_packet_bytes
        self._states: dict[str, Outgoing] = {}
        self._session: Session | None = None
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        # A thread of its own: those of the loop may all be waiting for what comes over this connection.
        self._connecting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mqtt-connect")
        self._started = False
        self._short_lives = 0
        self.dropped = 0

    @property
    def connected(self) -> bool:
        return self._session is not None

    def subscribe(self, topic_filter: str, handler: Handler, qos: int = 1) -> None:
        """Calls `handler(topic, payload)` for every message; raises ValueError for a filter that is already taken."""
        if topic_filter in self._routes:
            raise ValueError(f"{topic_filter} is already subscribed to on this port.")
        route = _Route(topic_filter, handler, qos)
        self._routes[topic_filter] = route
        if self._started:
            self._spawn(route.work())
        if self._session is not None:
            self._spawn(self._subscribe_now(self._session, route))

    def on_connect(self, callback: Callback) -> None:
        """Calls back after every connect and reconnect, once the subscriptions stand."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Returns at once; connecting, and connecting again, goes on behind until `stop`."""
        self._started = True
        for route in self._routes.values():
            self._spawn(route.work())
        self._spawn(self._keep_connected())

    async def wait_connected(self, timeout_s: float) -> None:
        """Until connected, subscribed and re-asserted. Raises TimeoutError that names the broker."""
        try:
            await within(self._ready.wait(), timeout_s)
        except asyncio.TimeoutError as error:
            raise TimeoutError(f"No MQTT broker answered at {self._url} in {timeout_s:g} s. Is it running?") from error

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        qos: int = 1,
        over: Over = nothing,
    ) -> None:
        """Never blocks. Raises ValueError for a payload that no broker of ours takes.

        Away from the broker, retained messages are dropped (their owners publish them on connect), QoS 0 ones too;
        the others wait in a queue that drops its oldest. `over` is told of each of these others whether the broker has
        it, or it was given up; nothing where the port ends first.
        """
        if len(payload) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{topic}: {len(payload)} bytes are over the limit of {MAX_MESSAGE_BYTES}.")
        message = Outgoing(topic, payload, retain, qos, over)
        if self._session is None and (retain or qos == 0):
            return
        if retain:
            self._states.pop(topic, None)
            self._states[topic] = message
        else:
            self._queue(message)
        self._send_waiting()

    async def drained(self, below: int) -> None:
        """Until fewer than `below` messages wait or are on their way; at once where there is no connection."""
        while (session := self._session) is not None and len(self._events) + len(session.unconfirmed) >= below:
            self._moved.clear()
            await self._moved.wait()

    async def stop(self) -> None:
        """Sends what waits (for a second at most), disconnects without the will, and ends all tasks."""
        session, self._started = self._session, False
        if session is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._idle.wait(), _DRAIN_S)
            session.disconnect()
            await asyncio.wait([session.closed], timeout=_DRAIN_S)
        await self._end_tasks()

    async def kill(self) -> None:
        """Ends as a crash would: the broker publishes the will."""
        if self._session is not None:
            self._session.abandon()
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        """Cancels until they end: up to Python 3.11 `wait_for` loses a cancellation that comes with its result."""
        self._started = False
        while tasks := [task for task in self._tasks if not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_DRAIN_S)
        self._connecting.shutdown(wait=False)

    async def _keep_connected(self) -> None:
        loop, failures, fights, pause_s = asyncio.get_running_loop(), 0, 0, 0.0
        while True:
            began_s = loop.time()
            try:
                session = await self._open()
            except (OSError, asyncio.TimeoutError) as error:
                if failures == 0:
                    log.warning("mqtt: no broker at %s: %s; trying again", self._url, self._why(error))
                failures, fights = failures + 1, 0  # the broker itself was away
            else:
                failures, taken_over = 0, await self._live(session)
                steady = loop.time() - began_s > max(_STEADY_S, 4 * pause_s) and not taken_over
                self._short_lives = 0 if steady else self._short_lives + 1
                fights = 0 if steady else fights + 1
                if fights == _FEW:
                    log.error("mqtt: %s", _FIGHT.format(_FEW, self._client_id))
            longest_s = longest_pause_s(failures, fights, self._longest_pause_s)
            pause_s = self._rng.uniform(longest_s / 2, longest_s)
            await asyncio.sleep(pause_s)

    def _why(self, error: Exception) -> str:
        """Some TLS libraries close without a word on a certificate that they do not like."""
        said, hint = told(error), "it may refuse this client's certificate (tls.cert_file), or want one"
        silent = self._scheme == "mqtts" and isinstance(error, ClosedEarly) and "tls." not in said
        return f"{said}; {hint}" if silent else said

    async def _open(self) -> Session:
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(self._connecting, self._new_client)
        session = Session(client, self._deliver, self._send_waiting)
        await loop.run_in_executor(self._connecting, self._connect, client)
        session.attach()
        try:
            reason = await within(asyncio.shield(session.accepted), ANSWER_TIMEOUT_S)
            if reason.is_failure:
                raise ConnectionError(f"the broker refused the connection: {reason}")
        except BaseException:
            session.abandon()
            raise
        return session

    def _connect(self, client: Client) -> None:
        client.connect(self._host, self._port, self._keepalive_s, clean_start=True, properties=self._terms())

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_queued_messages_set(0)
        client.max_inflight_messages_set(OUT_WINDOW)
        if self._scheme == "mqtts":
            context = client_context(self._tls)
            context.sslsocket_class = _TidySocket
            client.tls_set_context(context)
        if self._login is not None:
            client.username_pw_set(*self._login)
        if self._will is not None:
            topic, payload, retain = self._will
            client.will_set(topic, payload, qos=1, retain=retain)
        return client

    def _terms(self) -> Properties:
        """No session expiry: a session ends with its connection. Unacknowledged messages are bounded by the window."""
        properties: Properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = _IN_WINDOW
        properties.MaximumPacketSize = self._max_packet_bytes
        return properties

    async def _live(self, session: Session) -> bool:
        """One connection from its first to its last moment; True when another client took its name over."""
        if self._is_told:
            log.info("mqtt: %s connected to %s", self._client_id, self._url)
        self._session = session
        pings = asyncio.ensure_future(session.keep_alive(min(1.0, self._keepalive_s / 2)))
        try:
            await self._set_up(session)
            reason = await asyncio.shield(session.closed)
        except (ConnectionError, asyncio.TimeoutError) as error:
            session.abandon()
            log.warning("mqtt: set-up with %s failed: %s", self._url, error or type(error).__name__)
            return False
        finally:
            self._lose(session)
            pings.cancel()
        if self._started and self._is_told:
            log.warning("mqtt: %s lost %s: %s", self._client_id, self._url, reason)
        taken_over: bool = reason.value == _TAKEN_OVER
        if taken_over and self._is_told:
            log.error("mqtt: another client uses the name %r: give each process its own name", self._client_id)
        return taken_over

    @property
    def _is_told(self) -> bool:
        """Of connections that all end soon, the first few are told, and then one in a hundred."""
        return self._short_lives < _FEW or self._short_lives % 100 == 0

    async def _set_up(self, session: Session) -> None:
        if self._routes:
            await session.subscribe([(route.filter, route.qos) for route in self._routes.values()])
        for callback in self._callbacks:
            await _call_back(callback)
        self._ready.set()
        self._send_waiting()

    def _lose(self, session: Session) -> None:
        self._session = None
        self._ready.clear()
        self._moved.set()
        self._states.clear()
        again = [message for message in session.unconfirmed.values() if message.qos and not message.retain]
        self._events = deque(message for message in (*again, *self._events) if message.qos)
        self._events_bytes = sum(len(message.payload) for message in self._events)
        session.abandon()

    async def _subscribe_now(self, session: Session, route: _Route) -> None:
        # A connection lost meanwhile is no failure here: the next one subscribes to everything.
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            await session.subscribe([(route.filter, route.qos)])

    def _deliver(self, session: Session, message: MQTTMessage) -> None:
        route = next((route for route in self._routes.values() if _matches(route.filter, message.topic)), None)
        if route is None:
            session.acknowledge(message)
        elif not route.put(session, message):
            self.dropped += 1

    def _queue(self, message: Outgoing) -> None:
        self._events.append(message)
        self._events_bytes += len(message.payload)
        while len(self._events) > self._queue_limit or self._events_bytes > self._queue_bytes:
            self._next_event().over(False)
            self.dropped += 1

    def _next_event(self) -> Outgoing:
        event = self._events.popleft()
        self._events_bytes -= len(event.payload)
        return event

    def _send_waiting(self) -> None:
        self._moved.set()
        session = self._session
        if session is None or session.closed.done():
            return
        while (self._states or self._events) and len(session.unconfirmed) < session.window:
            if self._states:
                session.publish(self._states.pop(next(iter(self._states))))
            else:
                session.publish(self._next_event())
        if session.unconfirmed:
            self._idle.clear()
        else:
            self._idle.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def longest_pause_s(failures: int, fights: int, most_s: float = LONGEST_PAUSE_S) -> float:
    """Before the next attempt, after so many in a row that failed, `most_s` at most, or so many connections that were
    soon over, with no failed attempt between them: another client of that name may have taken each."""
    failed = min(most_s, _FIRST_PAUSE_S * 2.0 ** min(failures, 10))
    fought = min(_LONGEST_FIGHT_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(fights, 10))
    return max(failed, fought)


class _TidySocket(ssl.SSLSocket):
    """paho leaves a socket open whose handshake fails."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


async def _call_back(callback: Callback) -> None:
    try:
        pending = callback()
        if inspect.isawaitable(pending):
            await pending
    except Exception:
        log.exception("mqtt: a callback after connecting failed")


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5, 4.7: `+` stands for one level, a last `#` for all that follow."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        return len(levels) >= len(wanted) - 1 and all(w in ("+", g) for w, g in zip(wanted[:-1], levels, strict=False))
    return len(levels) == len(wanted) and all(w in ("+", g) for w, g in zip(wanted, levels, strict=True))


def _parse(url: str) -> tuple[str, str, int, tuple[str, str | None] | None]:
    """Scheme, host, port, and user with password."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(
            f"{url!r} is not a broker's address: write mqtt://HOST:PORT, mqtts://HOST:PORT for TLS, or "
            f"mqtt://USER:PASSWORD@HOST:PORT."
        )
    login = (parts.username, parts.password) if parts.username else None
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], login
