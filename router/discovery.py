"""From MQTT into the table: identities and certificates once verified, and what nodes say of themselves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from contracts import topics
from contracts.errors import FoothillError
from contracts.messages import Audit, Certificate, Identity, Load, Reported, Signed, Status, decode, encode
from runtime.links.escalation.certificate_reader import CertificateReader, Keys
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust.signatures import seal, verify

log = logging.getLogger(__name__)

VERIFY_PAUSE_S = 2.0
T = TypeVar("T", Status, Reported, Load)


class NodeTable(Protocol):
    """Takes what is said of nodes, in the order in which it was said. Times are monotonic, in seconds."""

    def put_identity(self, identity: Identity) -> None:
        """A verified one."""
        ...

    def put_status(self, status: Status, now_s: float) -> None: ...

    def put_reported(self, reported: Reported) -> None: ...

    def put_load(self, load: Load, now_s: float) -> None: ...


class CertificateTable(Protocol):
    def put(self, certificate: Certificate) -> None:
        """A verified one."""
        ...


class Discovery:
    """Keeps `nodes` and `certificates` as the broker tells. With the broker away, both stay as they are.

    `hop_key` seals the audits that this router publishes: the fleet believes no others.
    """

    def __init__(
        self,
        mqtt: MqttPort,
        keys: Keys,
        nodes: NodeTable,
        certificates: CertificateTable,
        clock: Callable[[], float],
        *,
        hop_key: bytes,
        verify_pause_s: float = VERIFY_PAUSE_S,
    ) -> None:
        self._mqtt = mqtt
        self._keys = keys
        self._nodes = nodes
        self._certificates = certificates
        self._reader = CertificateReader(keys, self._take_certificate)
        self._hop_key = hop_key
        self._clock = clock
        self._verify_pause_s = verify_pause_s
        self._unverified: dict[str, Signed] = {}
        self._noted = ""
        self._verifying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        handlers: dict[str, Callable[[str, bytes], Awaitable[None] | None]] = {
            topics.every_node("identity"): self._on_identity,
            topics.every_node("status"): self._on_status,
            topics.every_node("reported"): self._on_reported,
            topics.EVERY_CERTIFICATE: self._reader.hear,
        }
        for topic, handler in handlers.items():
            self._mqtt.subscribe(topic, handler)
        self._mqtt.subscribe(topics.every_node("load"), self._on_load, qos=0)
        self._verifying = asyncio.create_task(self._keep_verifying())
        await self._mqtt.start()

    async def stop(self) -> None:
        if self._verifying is not None:
            self._verifying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._verifying
        await self._mqtt.stop()

    @property
    def connected(self) -> bool:
        return self._mqtt.connected

    def publish_audit(self, audit: Audit) -> None:
        self._mqtt.publish(topics.audit_topic(audit.stratum), encode(seal(audit, self._hop_key)))

    async def _on_identity(self, topic: str, payload: bytes) -> None:
        self._unverified[topics.node_of(topic)] = decode(payload, Signed)
        await self._verify_waiting()

    def _on_status(self, topic: str, payload: bytes) -> None:
        self._nodes.put_status(_said_by_itself(topic, decode(payload, Status)), self._clock())

    def _on_reported(self, topic: str, payload: bytes) -> None:
        self._nodes.put_reported(_said_by_itself(topic, decode(payload, Reported)))

    def _on_load(self, topic: str, payload: bytes) -> None:
        self._nodes.put_load(_said_by_itself(topic, decode(payload, Load)), self._clock())

    def _take_certificate(self, certificate: Certificate, _: Signed) -> None:
        self._certificates.put(certificate)

    async def _keep_verifying(self) -> None:
        """Identities and certificates wait for as long as the fleet, which holds the keys, is away."""
        while True:
            await asyncio.sleep(self._verify_pause_s)
            if self._unverified:
                await self._verify_waiting()
            await self._reader.retry()

    async def _verify_waiting(self) -> None:
        for node, signed in list(self._unverified.items()):
            try:
                keys = await self._keys.holding("identity", signed.key_id)
            except (FoothillError, OSError) as error:
                self._note_waiting(f"identities of {', '.join(self._unverified)} wait: {error}")
                continue
            if signed.key_id not in keys:
                continue
            if self._unverified.get(node) is signed:
                del self._unverified[node]
            self._take(node, signed, keys)

    def _note_waiting(self, why: str) -> None:
        if why != self._noted:
            log.warning(why)
            self._noted = why

    def _take(self, node: str, signed: Signed, keys: Mapping[str, str]) -> None:
        try:
            identity = verify(signed, keys, Identity)
            if identity.node != node:
                raise FoothillError("forbidden", f"The identity is {identity.node!r}'s.")
            self._nodes.put_identity(identity)
        except (FoothillError, ValueError) as error:
            log.warning("the identity of %s is refused: %s", node, error)
        else:
            log.info("node %s is at %s, region %s", node, identity.url, identity.region)


def _said_by_itself(topic: str, message: T) -> T:
    if topics.node_of(topic) != message.node:
        raise FoothillError("forbidden", f"A message of node {message.node!r} came on {topic}.")
    return message
