"""What comes after its request's answer: the cloud's word on a request whose caller had left with the edge's."""

from __future__ import annotations

import msgspec

from contracts import headers
from contracts.predictions import with_reason
from runtime.links.http.upstream import Answer

LATE = "late"
"""The reason on an answer that came after its caller had gone with a degraded one."""
SPOOLED, DELIVERED = "spooled", "delivered"


class Waiting(msgspec.Struct, frozen=True):
    """The body of a 202: the cloud has not answered yet. `spooled_at_s` is unix time."""

    state: str
    request_id: str
    model: str
    spooled_at_s: float


def as_late(path: str, request_id: str, answer: Answer) -> Answer:
    """The cloud's answer to the request that went to `path`, with what its caller may see of it."""
    body = answer.body
    if path.startswith("/v1/predict/"):
        body = with_reason(body, answer.headers.get("Content-Type", ""), LATE)
    told = headers.relayed(answer.headers, headers.RELAYED_OUT) | {
        headers.REQUEST_ID: request_id,
        headers.TIER: "cloud",
        headers.REASON: LATE,
        headers.CERTIFIED: "false",
        headers.DEGRADED: "false",
        headers.LATE: DELIVERED,
    }
    return Answer(answer.status, told, body, answer.hop_ms)


def waiting_answer(waiting: Waiting) -> Answer:
    """What is told until it is there."""
    told = {
        "Content-Type": "application/json",
        headers.LATE: SPOOLED,
        headers.REQUEST_ID: waiting.request_id,
        "Retry-After": "5",
    }
    return Answer(202, told, msgspec.json.encode(waiting))
