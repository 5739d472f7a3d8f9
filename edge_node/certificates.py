"""The certificates a node decides by: those of the strata it serves, kept for the time without a broker."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.manifest import Artifact
from contracts.messages import Certificate, Signed
from runtime.links.escalation.holder import Certificates
from runtime.links.process.durable import write_file
from runtime.links.trust.signatures import verify

log = logging.getLogger(__name__)

FILE = "certificates.json"
SEED_SEQUENCE = 0
_MAX_WAITING = 1024


def seed_certificate(model: str, artifact: Artifact) -> Certificate | None:
    """The bundle's own rule as a certificate, below every issued one; None for an artifact without a rule."""
    rule = artifact.confidence
    if rule is None:
        return None
    return Certificate(
        stratum=rule.stratum,
        model=model,
        threshold=rule.threshold,
        epsilon=rule.epsilon,
        delta=rule.delta,
        n=rule.n,
        state="live",
        sequence=SEED_SEQUENCE,
        issued_at_s=0.0,
    )


class _Issued(NamedTuple):
    certificate: Certificate
    signed: Signed


class NodeCertificates:
    """Fills `live`, which the holder reads.

    The fleet retains every stratum's certificate on one topic tree, and may send one before the node serves its
    stratum: those wait, the latest 1,024 of them. Live ones are written to `directory` in their envelopes, so that a
    revocation outlives a restart without a broker; `keys` (key id to public hex) says whose are believed from there.
    """

    def __init__(self, directory: Path, keys: Callable[[], Mapping[str, str]]) -> None:
        self.live = Certificates()
        self._path = directory / FILE
        self._waiting: OrderedDict[str, _Issued] = OrderedDict()
        self._sequences: dict[str, int] = {}
        self._kept: dict[str, Signed] = {}
        for issued in _read(self._path, keys):
            self._waiting[issued.certificate.stratum] = issued

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def serve(self, seed: Certificate) -> None:
        """From now on the stratum of `seed` is served; the seed rules until something newer is known."""
        self._adopt(seed)
        waiting = self._waiting.pop(seed.stratum, None)
        if waiting is not None:
            self.take(*waiting)

    def take(self, certificate: Certificate, signed: Signed) -> None:
        """A certificate that arrived, and the envelope that proved it."""
        if certificate.stratum in self._sequences:
            if self._adopt(certificate):
                self._kept[certificate.stratum] = signed
                write_file(self._path, msgspec.json.encode(list(self._kept.values())))
            return
        issued = _Issued(certificate, signed)
        known = self._waiting.pop(certificate.stratum, issued)
        self._waiting[certificate.stratum] = max(known, issued, key=lambda one: one.certificate.sequence)
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popitem(last=False)

    def _adopt(self, certificate: Certificate) -> bool:
        """False for one that is not newer than what rules now."""
        known = self._sequences.get(certificate.stratum)
        if known is not None and certificate.sequence <= known:
            return False
        self._sequences[certificate.stratum] = certificate.sequence
        self.live.put(certificate)
        log.info(
            "stratum %s of %s: %s certificate, threshold %.4f, sequence %d",
            certificate.stratum,
            certificate.model,
            certificate.state,
            certificate.threshold,
            certificate.sequence,
        )
        return True


def _read(path: Path, keys: Callable[[], Mapping[str, str]]) -> Iterator[_Issued]:
    """The certificates in the file that the fleet signed.

    Escalating by the bundle's own rule is safe enough to start; refusing to start is not.
    """
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=list[Signed])
        trusted = keys()
    except FileNotFoundError:
        return
    except (OSError, FoothillError, *UNREADABLE) as error:
        log.error("%s cannot be read (%s); the bundles' own rules hold until the broker answers", path, error)
        return
    for signed in kept:
        certificate = _verified(signed, trusted, path)
        if certificate is not None:
            yield _Issued(certificate, signed)


def _verified(signed: Signed, trusted: Mapping[str, str], path: Path) -> Certificate | None:
    try:
        return verify(signed, trusted, Certificate)
    except FoothillError as error:
        log.error("a certificate in %s is not believed, its bundle's own rule holds: %s", path, error)
        return None
