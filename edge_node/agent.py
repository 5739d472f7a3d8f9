"""The node's side of the control plane: what it publishes of itself, and whose documents it follows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from contracts import topics
from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from contracts.messages import (
    MAX_EPOCH,
    Audit,
    Capabilities,
    Desired,
    Late,
    Load,
    NodeState,
    Quality,
    Reported,
    Signed,
    Status,
    Vitals,
    decode,
    encode,
)
from contracts.quality import Counts
from edge_node.certificates import NodeCertificates
from edge_node.quality import QualityTold
from edge_node.updater import Updater
from edge_node.vitals import is_news
from runtime.links.escalation.certificate_reader import CertificateReader
from runtime.links.mqtt.port import MqttPort, Will
from runtime.links.process.within import within
from runtime.links.trust import signatures
from runtime.links.trust.fleet_keys import FleetKeys
from runtime.links.trust.tuf import TrustedFleet, TrustUnavailable
from runtime.serving.models.hosting import LoadFigures

log = logging.getLogger(__name__)

OpenPort = Callable[[Will], MqttPort]

LOAD_EVERY_S = 1.0
VITALS_EVERY_S = 30.0
QUALITY_EVERY_S = 5.0
RENEW_PAUSE_S = 1.0
KEYS_PAUSE_S = 2.0
UNREAD_PAUSE_S = 30.0
RETRY_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class _Wanted(msgspec.Struct, frozen=True):
    """A verified desired document, and the manifests that rode along."""

    desired: Desired
    manifests: dict[str, bytes]


class Agent:
    """Keeps one node in touch with its fleet for as long as it runs, with or without a broker.

    `open_port` makes an MQTT client with the given will; `fingerprint` tells the machine as it is known now, `load`
    reads the present load, `vitals` the machine's (in a thread), of which `looked` is told; `counts` gives what each
    version has done since the process began; `capabilities` are told to routers; `private_key` is the one that this
    node enrolled, and signs its audits and counts.
    """

    def __init__(
        self,
        *,
        node: str,
        private_key: bytes,
        open_port: OpenPort,
        updater: Updater,
        trust: TrustedFleet,
        certificates: NodeCertificates,
        fingerprint: Callable[[], Fingerprint],
        load: Callable[[], LoadFigures],
        vitals: Callable[[], Vitals] = Vitals,
        vitals_every_s: float = VITALS_EVERY_S,
        looked: Callable[[Vitals], None] = lambda vitals: None,
        counts: Callable[[], dict[str, Counts]] = dict,
        quality_every_s: float = QUALITY_EVERY_S,
        capabilities: Capabilities = (),
        unread_pause_s: float = UNREAD_PAUSE_S,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._private_key = private_key
        self._open_port = open_port
        self._updater = updater
        self._trust = trust
        self._reader = CertificateReader(FleetKeys(self._open_fleet, clock), certificates.take)
        self._fingerprint = fingerprint
        self._told_fingerprint: Fingerprint | None = None
        self._load = load
        self._read_vitals = vitals
        self._vitals_every_s = vitals_every_s
        self._vitals = Vitals()
        self._looked = looked
        self._quality = QualityTold(counts)
        self._quality_every_s = quality_every_s
        self._capabilities = capabilities
        self._unread_pause_s = unread_pause_s
        self._wall = wall
        self._epoch = int(wall() * 1000)
        self._seen_epoch = self._epoch
        self._state: NodeState = "online"
        self._port = self._new_port()
        self._renew = asyncio.Event()
        self._wanted: _Wanted | None = None
        self._settled = True
        self._refused: Desired | None = None
        self._unread: bytes | None = None
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        updater.changed.append(self._publish_reported)

    @property
    def node(self) -> str:
        return self._node

    @property
    def epoch(self) -> int:
        return self._epoch

    async def start(self) -> None:
        """Returns at once; everything goes on behind."""
        works: list[Coroutine[Any, Any, None]] = [
            self._keep_online(),
            self._keep_following(),
            self._keep_reading_certificates(),
            self._keep_reading_desired(),
            self._keep_telling_load(),
            self._keep_telling_vitals(),
            self._keep_telling_quality(),
        ]
        self._tasks = [asyncio.create_task(work) for work in works]

    def drain(self) -> None:
        """Tells the routers to send no more."""
        self._state = "draining"
        self._publish_status()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._updater.stop()
        self._state = "offline"
        self._publish_status()
        await self._port.stop()

    def publish_late(self, late: Late) -> bool:
        """False while the broker is away: try again then."""
        if self._port.connected:
            self._port.publish(topics.node_topic(self._node, "late"), encode(signatures.sign(late, self._private_key)))
            return True
        return False

    def publish_audit(self, audit: Audit) -> None:
        self._port.publish(topics.audit_topic(audit.stratum), encode(signatures.sign(audit, self._private_key)))

    def _new_port(self) -> MqttPort:
        gone = encode(self._status("offline"))
        port = self._open_port((topics.node_topic(self._node, "status"), gone, True))
        port.subscribe(topics.node_topic(self._node, "desired"), self._on_desired)
        port.subscribe(topics.node_topic(self._node, "status"), self._on_status)
        port.subscribe(topics.EVERY_CERTIFICATE, self._reader.hear)
        port.on_connect(self._publish_state)
        return port

    async def _keep_online(self) -> None:
        """A client's will cannot change while it is connected, so a new epoch takes a new client."""
        while True:
            await self._port.start()
            await self._renew.wait()
            self._renew.clear()
            await self._port.stop()
            await asyncio.sleep(RENEW_PAUSE_S)
            self._epoch = min(self._seen_epoch + 1, MAX_EPOCH)
            self._quality.begin_epoch()
            self._port = self._new_port()

    def _publish_state(self) -> None:
        self._publish_status()
        self._publish_reported()
        self._publish_quality()

    def _publish_status(self) -> None:
        told = encode(self._status(self._state))
        self._port.publish(topics.node_topic(self._node, "status"), told, retain=True)

    def _status(self, state: NodeState) -> Status:
        return Status(self._node, self._epoch, state, self._capabilities)

    def _publish_reported(self) -> None:
        self._told_fingerprint = self._fingerprint()
        reported = Reported(
            node=self._node,
            epoch=self._epoch,
            sequence=self._updater.sequence,
            models=dict(self._updater.reports),
            fingerprint=self._told_fingerprint,
            at_s=self._wall(),
            vitals=self._vitals,
        )
        self._port.publish(topics.node_topic(self._node, "reported"), encode(reported), retain=True)

    async def _keep_telling_load(self) -> None:
        """Every second while it changes."""
        told: LoadFigures | None = None
        while True:
            await asyncio.sleep(LOAD_EVERY_S)
            now = self._load()
            if now != told:
                told = now
                load = Load(self._node, self._epoch, now.in_flight, now.queue_ms, now.service_ms)
                self._port.publish(topics.node_topic(self._node, "load"), encode(load), qos=0)

    async def _keep_telling_vitals(self) -> None:
        """With the report, and by themselves when they or the fingerprint change. What stands in the report is what was
        told last."""
        while True:
            now = await asyncio.to_thread(self._read_vitals)
            self._looked(now)
            if is_news(self._vitals, now) or self._fingerprint() != self._told_fingerprint:
                self._vitals = now
                self._publish_reported()
            await asyncio.sleep(self._vitals_every_s)

    async def _keep_telling_quality(self) -> None:
        """What has changed, not more often than anybody could act on."""
        told: dict[str, Counts] = {}
        while True:
            await asyncio.sleep(self._quality_every_s)
            now = self._quality.now()
            if now != told:
                told = now
                self._publish_quality()

    def _publish_quality(self) -> None:
        versions = self._quality.now()
        if versions:
            signed = signatures.sign(Quality(self._node, self._epoch, versions), self._private_key)
            self._port.publish(topics.node_topic(self._node, "quality"), encode(signed), retain=True)

    def _on_status(self, topic: str, payload: bytes) -> None:
        """What stands on this node's own topic must be this node's word: a will of old, or somebody else's, is not."""
        status = _readable(payload)
        if status is not None and status.epoch > self._epoch:
            log.error(
                "%s is also said by another process or an earlier life of this node with a later clock (epoch %d); "
                "taking the name back. If this repeats, two nodes run with one enrolment: enrol one of them anew.",
                topic,
                status.epoch,
            )
            self._seen_epoch = status.epoch
            self._renew.set()
        elif status != self._status(self._state):
            self._publish_status()

    async def _open_fleet(self) -> TrustedFleet:
        return self._trust

    async def _keep_reading_certificates(self) -> None:
        """They wait for as long as the fleet, which holds the keys, is away."""
        while True:
            await asyncio.sleep(KEYS_PAUSE_S)
            await self._reader.retry()

    async def _keep_reading_desired(self) -> None:
        """A document comes once with each connection, which may last for months."""
        topic = topics.node_topic(self._node, "desired")
        while True:
            await asyncio.sleep(self._unread_pause_s)
            if self._unread is not None:
                with contextlib.suppress(FoothillError):
                    await self._on_desired(topic, self._unread)

    async def _on_desired(self, topic: str, payload: bytes) -> None:
        if not payload:
            return
        signed = decode(payload, Signed)
        try:
            desired = await self._verified(signed)
        except FoothillError as error:
            # Its key is unknown, and the fleet's metadata cannot be had now: it may be the document of a new key.
            self._unread = payload if error.retryable else None
            raise
        self._unread = None
        reason = self._updater.refusal(desired)
        if reason:
            self._refuse(topic, desired, reason)
            return
        known = self._wanted.desired.sequence if self._wanted is not None else -1
        if desired.sequence > known or (desired.sequence == known and self._settled):
            self._wanted = _Wanted(desired, dict(signed.attachments))
            self._news.set()

    def _refuse(self, topic: str, desired: Desired, reason: str) -> None:
        """Told once: a document stays on its topic, and comes again with every connection."""
        if desired != self._refused:
            log.warning("desired document %d on %s is refused: %s", desired.sequence, topic, reason)
        self._refused = desired

    async def _verified(self, signed: Signed) -> Desired:
        """The document, once the fleet's keys say that it is one. Raises FoothillError `forbidden` for all others."""
        keys = await self._keys()
        if signed.key_id not in keys:
            await asyncio.to_thread(self._trust.refresh)
            keys = await self._keys()
        return signatures.verify(signed, keys, Desired)

    async def _keys(self) -> dict[str, str]:
        """Waits for the fleet where its keys were never seen before: without them no document can be told apart."""
        while True:
            keys = await self._known_keys()
            if keys is not None:
                return keys
            await asyncio.sleep(KEYS_PAUSE_S)

    async def _known_keys(self) -> dict[str, str] | None:
        try:
            return await asyncio.to_thread(self._trust.keys, "desired")
        except TrustUnavailable as error:
            log.warning("a desired document waits for the fleet's keys: %s", error.message)
            return None

    async def _keep_following(self) -> None:
        """Works on the newest document, and again on what could not be finished."""
        failures = 0
        while True:
            pause = RETRY_PAUSES_S[min(failures, len(RETRY_PAUSES_S)) - 1] if failures else None
            if await self._news_within(pause):
                failures = 0
            if self._wanted is not None:
                self._settled = False
                self._settled = await self._follow(self._wanted)
                failures = 0 if self._settled else failures + 1

    async def _news_within(self, seconds: float | None) -> bool:
        try:
            await within(self._news.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        self._news.clear()
        return True

    async def _follow(self, wanted: _Wanted) -> bool:
        """Applies one document, until it is done or a newer one arrives. False: try again later."""
        work = asyncio.create_task(self._updater.apply(wanted.desired, wanted.manifests))
        news = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait({work, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            news.cancel()
            await asyncio.gather(work, news, return_exceptions=True)
        if work.cancelled():
            log.info("desired document %d makes way for a newer one", wanted.desired.sequence)
            return True
        error = work.exception()
        if error is not None:
            log.error("desired document %d failed", wanted.desired.sequence, exc_info=error)
            return False
        return work.result()


def _readable(payload: bytes) -> Status | None:
    """None also for what is no status: it must not stay where routers look for one."""
    try:
        return decode(payload, Status)
    except FoothillError:
        return None
