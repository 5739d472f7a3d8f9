"""Strata: the populations that a certificate speaks of."""

from __future__ import annotations

import hashlib


def stratum_of(artifact_digest: str, cloud_digest: str, task: str) -> str:
    """The id of one (edge artifact digest, cloud bundle digest, task): 32 hex digits. Two versions never share one."""
    joined = "\n".join((artifact_digest, cloud_digest, task))
    return hashlib.sha256(joined.encode()).hexdigest()[:32]
