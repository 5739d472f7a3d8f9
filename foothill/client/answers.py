"""Answers: the payload, and with every one where it was made, why there, how sure, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import msgspec

from contracts import headers
from contracts.oip import HEADER_LENGTH
from contracts.predictions import Prediction
from contracts.timing import across_hop, parse_server_timing
from foothill.client.tensors import Tensor, decode_answer

MSGPACK = "application/msgpack"


class Settled(msgspec.Struct, frozen=True):
    """A successful HTTP answer, and what it cost: ms of the whole call, of its last hop, and of what came before it.

    `answered` are its headers, case-insensitive. `before_ms` has `lease` (asking the router) and `retry` (attempts
    that failed), where there were any. `attempts` counts upstreams asked, the last included; `sent_bytes` is the
    length of the request's body.
    """

    answered: Mapping[str, str]
    body: bytes
    hop_ms: float
    total_ms: float
    before_ms: dict[str, float]
    attempts: int
    sent_bytes: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer says of itself.

    `bundle` is the name@version that answered. `confidence` is in 0..1, or None when the model reports none.
    `certified`: the promise of a certificate covers it. `degraded`: it should have been escalated and could not be.
    `timings_ms` has the server's phases and `network` (time under way, connecting included); with `lease` and
    `retry`, where spent, they add up to about `total_ms`. `sent_bytes` and `received_bytes` are the lengths of the
    bodies.
    """

    tier: str
    node: str
    reason: str
    confidence: float | None
    certified: bool
    degraded: bool
    request_id: str
    bundle: str
    timings_ms: dict[str, float]
    total_ms: float
    attempts: int
    sent_bytes: int
    received_bytes: int


class Predicted(Answer, frozen=True, kw_only=True):
    """The answer of `predict`: a classification, a detection or an embedding."""

    prediction: Prediction


class Inferred(Answer, frozen=True, kw_only=True):
    """The answer of `infer`: output tensors by name."""

    outputs: dict[str, Tensor]


def read_predicted(settled: Settled) -> Predicted:
    """Raises ValueError (msgspec.DecodeError is one) when the body is no prediction."""
    media_type = settled.answered.get("Content-Type", "").partition(";")[0]
    codec = msgspec.msgpack if media_type == MSGPACK else msgspec.json
    prediction: Prediction = codec.decode(settled.body, type=Prediction)
    return Predicted(prediction=prediction, **_facts(settled))


def read_inferred(settled: Settled) -> Inferred:
    """Raises ValueError when the body is no answer of the Open Inference Protocol."""
    return Inferred(outputs=decode_answer(settled.body, settled.answered.get(HEADER_LENGTH)), **_facts(settled))


class _Facts(TypedDict):
    tier: str
    node: str
    reason: str
    confidence: float | None
    certified: bool
    degraded: bool
    request_id: str
    bundle: str
    timings_ms: dict[str, float]
    total_ms: float
    attempts: int
    sent_bytes: int
    received_bytes: int


def _facts(settled: Settled) -> _Facts:
    answered = settled.answered
    confidence = answered.get(headers.CONFIDENCE)
    phases = across_hop(settled.hop_ms, parse_server_timing(answered.get(headers.SERVER_TIMING)))
    return {
        "tier": answered.get(headers.TIER, ""),
        "node": answered.get(headers.NODE, ""),
        "reason": answered.get(headers.REASON, ""),
        "confidence": float(confidence) if confidence else None,
        "certified": _yes(answered.get(headers.CERTIFIED)),
        "degraded": _yes(answered.get(headers.DEGRADED)),
        "request_id": answered.get(headers.REQUEST_ID, ""),
        "bundle": answered.get(headers.MODEL, ""),
        "timings_ms": settled.before_ms | phases,
        "total_ms": settled.total_ms,
        "attempts": settled.attempts,
        "sent_bytes": settled.sent_bytes,
        "received_bytes": len(settled.body),
    }


def _yes(value: str | None) -> bool:
    return value is not None and value.strip().lower() in ("true", "1")
