"""The certificates a node decides by: those of the strata it serves, kept for the time without a broker."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.manifest import Artifact
from contracts.messages import Certificate
from runtime.links.durable import write_file
from runtime.links.holder import Certificates

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


class NodeCertificates:
    """Fills `live`, which the holder reads.

    The fleet retains every stratum's certificate on one topic tree, and may send one before the node serves its
    stratum: those wait, the latest 1,024 of them. Live ones are written to `directory`, so that a revocation
    outlives a restart without a broker.
    """

    def __init__(self, directory: Path) -> None:
        self.live = Certificates()
        self._path = directory / FILE
        self._waiting: OrderedDict[str, Certificate] = OrderedDict()
        self._served: dict[str, Certificate] = {}
        for certificate in _read(self._path):
            self._waiting[certificate.stratum] = certificate

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def serve(self, seed: Certificate) -> None:
        """From now on the stratum of `seed` is served; the seed rules until something newer is known."""
        self._adopt(seed)
        waiting = self._waiting.pop(seed.stratum, None)
        if waiting is not None:
            self._adopt(waiting)

    def take(self, certificate: Certificate) -> None:
        """A certificate that arrived."""
        if certificate.stratum in self._served:
            self._adopt(certificate)
            return
        known = self._waiting.pop(certificate.stratum, certificate)
        self._waiting[certificate.stratum] = max(known, certificate, key=lambda one: one.sequence)
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popitem(last=False)

    def _adopt(self, certificate: Certificate) -> None:
        known = self._served.get(certificate.stratum)
        if known is not None and certificate.sequence <= known.sequence:
            return
        self._served[certificate.stratum] = certificate
        self.live.put(certificate)
        log.info(
            "stratum %s of %s: %s certificate, threshold %.4f, sequence %d",
            certificate.stratum,
            certificate.model,
            certificate.state,
            certificate.threshold,
            certificate.sequence,
        )
        if certificate.sequence > SEED_SEQUENCE:
            issued = [kept for kept in self._served.values() if kept.sequence > SEED_SEQUENCE]
            write_file(self._path, msgspec.json.encode(issued))


def _read(path: Path) -> list[Certificate]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Certificate])
    except FileNotFoundError:
        return []
    except (OSError, *UNREADABLE) as error:
        # Escalating by the bundle's own rule is safe enough to start; refusing to start is not.
        log.error("%s cannot be read (%s); the bundles' own rules hold until the broker answers", path, error)
        return []
