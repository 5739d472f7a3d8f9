"""The mark that one hop of the system puts on a request, so that the next one knows who holds it."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal, cast

Hop = Literal["router", "node"]
MAX_SKEW_S = 60.0
_BLOCK_BYTES = 64
_IPAD, _OPAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_VALUE = re.compile(r"(router|node);([0-9]{1,12});([0-9a-f]{64})")


class HopSigner:
    """Signs as `sign_hop` does, many requests a second: what they share is hashed once a second.

    HMAC (RFC 2104) is H(key ^ opad, H(key ^ ipad, message)): two hashes that begin alike for every message.
    """

    def __init__(self, key: bytes, hop: Hop) -> None:
        key = hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._hop = hop
        self._inner = hashlib.sha256(padded.translate(_IPAD))
        self._outer = hashlib.sha256(padded.translate(_OPAD))
        self._second = -1
        self._begun = self._inner
        self._prefix = ""

    def sign(self, request_id: str, now_s: float) -> str:
        second = int(now_s)
        if second != self._second:
            self._second, self._prefix = second, f"{self._hop};{second};"
            self._begun = self._inner.copy()
            self._begun.update(f"{self._hop}\n{second}\n".encode())
        inner, outer = self._begun.copy(), self._outer.copy()
        inner.update(request_id.encode())
        outer.update(inner.digest())
        return self._prefix + outer.hexdigest()


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
