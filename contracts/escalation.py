"""Who answers: the pure rule that keeps an edge answer or sends the request to the cloud."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from contracts.headers import Escalation
from contracts.messages import Certificate

Reason = Literal[
    "confident",
    "doubtful",
    "revoked",
    "uncertified",
    "no-confidence",
    "asked-never",
    "asked-always",
    "no-time",
    "no-cloud",
    "budget",
]


class Policy(msgspec.Struct, frozen=True):
    """`asked` is the caller's wish; `cloud_ms` what an escalation is expected to take; `cloud` whether there is one."""

    asked: Escalation = "auto"
    cloud_ms: float = 0.0
    cloud: bool = True


class Verdict(msgspec.Struct, frozen=True):
    """`certified`: the promise covers the answer. `degraded`: the rule wanted the cloud and could not; never certified.

    The promise: among all requests, at most a share epsilon is answered at the edge while the cloud would have
    answered otherwise. So it can be broken at the edge only. It covers an edge answer that a live certificate's
    threshold kept, and a cloud answer that a certificate, live or revoked, or its caller's `always` asked for: that
    one cannot differ from itself. Without a certificate nothing was promised, whoever answers, and an edge answer
    that its caller (`never`), a missing confidence, or a cloud that is away kept there is nobody's promise either.
    """

    action: Literal["accept", "escalate"]
    reason: Reason
    certified: bool = False
    degraded: bool = False


NO_CLOUD = Verdict("accept", "no-cloud", degraded=True)
"""There is none that could be asked now."""
BUDGET = Verdict("accept", "budget", degraded=True)
"""Whoever asks may cost the cloud nothing more now."""
_NEVER = Verdict("accept", "asked-never")
_ALWAYS = Verdict("escalate", "asked-always", certified=True)
_NO_CONFIDENCE = Verdict("accept", "no-confidence")
_UNCERTIFIED = Verdict("escalate", "uncertified")
_REVOKED = Verdict("escalate", "revoked", certified=True)
_CONFIDENT = Verdict("accept", "confident", certified=True)
_DOUBTFUL = Verdict("escalate", "doubtful", certified=True)


def decide(confidence: float | None, certificate: Certificate | None, time_left_ms: float, policy: Policy) -> Verdict:
    """One verdict for one edge answer. `confidence` in 0..1, or None when the node reported none."""
    wish = wish_of(confidence, certificate, policy.asked)
    if wish.action == "accept":
        return wish
    if not policy.cloud:
        return NO_CLOUD
    if time_left_ms <= policy.cloud_ms:
        return Verdict("accept", "no-time", degraded=True)
    return wish


def wish_of(confidence: float | None, certificate: Certificate | None, asked: Escalation) -> Verdict:
    """The verdict where there is a cloud and time for it. To accept is final: `decide` says the same."""
    if asked == "never":
        return _NEVER
    if asked == "always":
        return _ALWAYS
    if confidence is None or not math.isfinite(confidence):
        return _NO_CONFIDENCE
    if certificate is None:
        return _UNCERTIFIED
    if certificate.state == "revoked":
        return _REVOKED
    if confidence >= certificate.threshold:
        return _CONFIDENT
    return _DOUBTFUL
