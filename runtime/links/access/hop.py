"""The mark that one hop of the system puts on a request, so that the next one knows who holds it."""

from __future__ import annotations

import hmac
import re
from typing import Literal, cast

Hop = Literal["router", "node"]
MAX_SKEW_S = 60.0
_VALUE = re.compile(r"(router|node);([0-9]{1,12});([0-9a-f]{64})")


def sign_hop(key: bytes, hop: str, request_id: str, now_s: float) -> str:
    """The value of `Foothill-Hop`: `hop;unix seconds;HMAC-SHA256`, bound to the request id. `now_s` is unix time."""
    if hop not in ("router", "node"):
        raise ValueError(f"{hop!r} is not a hop: use router or node.")
    stamp = str(int(now_s))
    return f"{hop};{stamp};{_mac(key, hop, stamp, request_id)}"


def verify_hop(key: bytes, value: str | None, request_id: str, now_s: float) -> Hop | None:
    """Who marked the request, or None for a mark that is absent, forged, of another request, or older than 60 s."""
    found = _VALUE.fullmatch(value or "")
    if found is None:
        return None
    hop, stamp, mac = found.groups()
    fresh = abs(now_s - int(stamp)) <= MAX_SKEW_S
    genuine = hmac.compare_digest(mac, _mac(key, hop, stamp, request_id))
    return cast(Hop, hop) if fresh and genuine else None


def _mac(key: bytes, hop: str, stamp: str, request_id: str) -> str:
    return hmac.digest(key, "\n".join((hop, stamp, request_id)).encode(), "sha256").hex()
