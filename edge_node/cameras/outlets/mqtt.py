"""What is said of cameras, on MQTT: events in their order, states retained, and a last will."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from contracts.decoding import UNREADABLE
from contracts.messages import MAX_MESSAGE_BYTES
from contracts.topics import CameraKind, camera_of, camera_topic, cameras_topic, every_camera
from edge_node.cameras.feed import Feed, Said
from edge_node.cameras.outlets.journal import Journal, Waiting
from runtime.links.mqtt.port import MqttPort, Will

log = logging.getLogger(__name__)

EVENTS_WAITING, EVENTS_WAITING_BYTES = 10_000, 16 << 20
"""While the broker is away so many events wait; the oldest give way. States do not wait: they are said again."""

_RETAINED: tuple[CameraKind, ...] = ("counts", "snapshot", "state")
"""The state goes last: where the node ends in between, it is found by it again."""

IsThere = Callable[[str], bool]
"""Whether there is a camera of that name."""


class _Origin(msgspec.Struct):
    """Whose event it is."""

    node: str
    camera: str


def last_will(node: str) -> Will:
    """What the broker says of a node that is gone."""
    return cameras_topic(node), _status("offline"), True


class MqttOutlet:
    """`port` is its own, made with `last_will` and room for EVENTS_WAITING. It connects once there is something to say
    or to take back, or an earlier life of the node has said something: a node that never had cameras is no client."""

    def __init__(self, node: str, feed: Feed, port: MqttPort, journal: Journal) -> None:
        self._node = node
        self._feed = feed
        self._port = port
        self._journal = journal
        self._gone: set[str] = set()
        self._starting: asyncio.Task[None] | None = None
        self._stopping = False
        self._dropped = 0
        port.on_connect(self._assert_all)
        feed.listeners.append(self._hear)
        feed.forgetters.append(self._forget)

    @property
    def connected(self) -> bool:
        return self._port.connected

    @property
    def dropped(self) -> int:
        """Events that gave way, or that the broker does not take."""
        return self._dropped

    def picture(self, camera: str, jpeg: bytes) -> bool:
        """The last snapshot of a camera, where the broker is there to take it, and takes one of its size."""
        if not self._port.connected or len(jpeg) > MAX_MESSAGE_BYTES:
            return False
        topic = camera_topic(self._node, camera, "snapshot")
        self._gone.discard(topic)
        self._port.publish(topic, jpeg, retain=True)
        return True

    async def start(self) -> None:
        """What an earlier life has left comes first."""
        left = await self._journal.open()
        if left is not None:
            self._begin()
        for event in left or []:
            self._publish(event)

    def sweep(self, is_there: IsThere) -> None:
        """What an earlier life has left at the broker of cameras that are there no more is taken away."""

        def heard(topic: str, payload: bytes) -> None:
            camera = camera_of(topic)
            if payload and not self._stopping and not is_there(camera):
                self._take_away(camera, _RETAINED)

        self._port.subscribe(every_camera(self._node, "state"), heard)

    def leave_be(self) -> None:
        """From now on cameras go because the node stops: what the broker has of them stays."""
        self._stopping = True

    async def stop(self) -> None:
        if self._starting is not None:
            await self._starting
            self._port.publish(cameras_topic(self._node), _status("offline"), retain=True)
            await self._port.stop()
        await self._journal.close()
        if self._journal.unkept:
            self._dropped += self._journal.unkept
            log.warning("mqtt: %d events were neither sent nor kept before the end", self._journal.unkept)

    def _begin(self) -> None:
        if self._starting is None:
            self._journal.make()
            self._starting = asyncio.create_task(self._port.start())

    def no_picture(self, camera: str) -> None:
        """Its last snapshot goes, whichever life of the node has left it there."""
        self._take_away(camera, ("snapshot",))

    def _hear(self, said: Said) -> None:
        self._begin()
        if not said.retained:
            self._publish(self._journal.keep(said.body))
            return
        topic = camera_topic(self._node, said.camera, said.kind)
        self._gone.discard(topic)
        self._port.publish(topic, said.body, retain=True)

    def _publish(self, event: Waiting) -> None:
        """It is kept until the broker has it, or it has given way to newer ones."""
        over = partial(self._over, event.number)
        try:
            origin = msgspec.json.decode(event.body, type=_Origin)
            self._port.publish(camera_topic(origin.node, origin.camera, "events"), event.body, over=over)
        except (*UNREADABLE, ValueError) as error:
            log.error("mqtt: an event cannot be sent, and is dropped: %s", error)
            over(False)

    def _over(self, number: int, taken: bool) -> None:
        self._journal.forget((number,))
        self._dropped += not taken

    def _forget(self, camera: str, kind: CameraKind) -> None:
        """An empty message takes a retained one away; where the broker is away, once it is back. With its state a
        camera's picture goes, which an earlier life of the node may have left there."""
        self._take_away(camera, ("snapshot", "state") if kind == "state" else (kind,))

    def _take_away(self, camera: str, kinds: Iterable[CameraKind]) -> None:
        self._begin()
        for kind in kinds:
            topic = camera_topic(self._node, camera, kind)
            self._gone.add(topic)
            self._port.publish(topic, b"", retain=True)

    def _assert_all(self) -> None:
        self._port.publish(cameras_topic(self._node), _status("online"), retain=True)
        for topic in self._gone:
            self._port.publish(topic, b"", retain=True)
        for said in self._feed.standing:
            self._port.publish(camera_topic(self._node, said.camera, said.kind), said.body, retain=True)


def _status(state: str) -> bytes:
    return msgspec.json.encode({"state": state})
