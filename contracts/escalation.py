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


def decide(confidence: float | None, certificate: Certificate | None, time_left_ms: float, policy: Policy) -> Verdict:
    """One verdict for one edge answer. `confidence` in 0..1, or None when the node reported none."""
    wish = wish_of(confidence, certificate, policy.asked)
    if wish.action == "accept":
        return wish
    if not policy.cloud:
        return Verdict("accept", "no-cloud", degraded=True)
    if time_left_ms <= policy.cloud_ms:
        return Verdict("accept", "no-time", degraded=True)
    return wish


def wish_of(confidence: float | None, certificate: Certificate | None, asked: Escalation) -> Verdict:
    """The verdict where there is a cloud and time for it. To accept is final: `decide` says the same."""
    if asked == "never":
        return Verdict("accept", "asked-never")
    if asked == "always":
        return Verdict("escalate", "asked-always", certified=True)
    if confidence is None or not math.isfinite(confidence):
        return Verdict("accept", "no-confidence")
    if certificate is None:
        return Verdict("escalate", "uncertified")
    if certificate.state == "revoked":
        return Verdict("escalate", "revoked", certified=True)
    if confidence >= certificate.threshold:
        return Verdict("accept", "confident", certified=True)
    return Verdict("escalate", "doubtful", certified=True)
