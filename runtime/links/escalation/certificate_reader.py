"""Which certificates on MQTT are believed: those that the fleet signed, on the topic of their own stratum."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from contracts import topics
from contracts.errors import FoothillError
from contracts.messages import Certificate, Signed, decode
from contracts.targets import Use
from runtime.links.trust.signatures import verify

log = logging.getLogger(__name__)

_MAX_WAITING = 1024


class Keys(Protocol):
    async def holding(self, use: Use, key_id: str) -> Mapping[str, str]:
        """The keys for `use`. Raises FoothillError while nobody can tell whether `key_id` is one of them."""
        ...


class CertificateReader:
    """Gives `take` each certificate once it is verified, with the envelope that proves it.

    One whose key cannot be asked for yet waits for `retry`: the latest of each topic, 1,024 topics at most. A refused
    one changes nothing, and each reason is logged once: whoever reaches the broker can send as many as they like.
    """

    def __init__(self, keys: Keys, take: Callable[[Certificate, Signed], None]) -> None:
        self._keys = keys
        self._take = take
        self._waiting: OrderedDict[str, Signed] = OrderedDict()
        self._told: set[str] = set()

    async def hear(self, topic: str, payload: bytes) -> None:
        """A message on a certificate's topic. A cleared topic says nothing: certificates are revoked, not deleted."""
        if not payload:
            return
        try:
            signed = decode(payload, Signed)
        except FoothillError as error:
            self._refuse(topic, "unsigned", error.message)
            return
        self._waiting.pop(topic, None)
        self._waiting[topic] = msgspec.structs.replace(signed, attachments={})
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popitem(last=False)
        await self._read(topic)

    async def retry(self) -> None:
        """Reads what waits, as far as its keys can be had now."""
        for topic in list(self._waiting):
            await self._read(topic)

    async def _read(self, topic: str) -> None:
        signed = self._waiting.get(topic)
        if signed is None:
            return
        try:
            keys = await self._keys.holding("certificate", signed.key_id)
        except (FoothillError, OSError) as error:
            self._tell("waiting", f"certificates wait for the fleet's keys: {error}")
            return
        if self._waiting.get(topic) is signed:
            del self._waiting[topic]
        try:
            certificate = verify(signed, keys, Certificate)
        except FoothillError as error:
            self._refuse(topic, error.code, error.message)
            return
        if topic != f"{topics.CERTIFICATES}/{certificate.stratum}":
            self._refuse(topic, "stratum", f"It is signed for stratum {certificate.stratum[:80]!r}.")
            return
        self._take(certificate, signed)

    def _refuse(self, topic: str, reason: str, why: str) -> None:
        self._tell(
            reason,
            f"a certificate on {topic[:200]} is refused, and others like it will be without a word: {why} "
            f"Somebody who is not this fleet publishes at the broker; what was in force stays so.",
        )

    def _tell(self, reason: str, text: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.warning(text)
