"""HTTP header names, and the terms of a request that a caller may set with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, cast

import msgspec

from contracts.errors import FoothillError

# In: set by callers.
DEADLINE_MS: Final = "Foothill-Deadline-Ms"
ESCALATION: Final = "Foothill-Escalation"
RESIDENCY: Final = "Foothill-Residency"
PRIORITY: Final = "Foothill-Priority"
CAPABILITIES: Final = "Foothill-Capabilities"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
TRACEPARENT: Final = "traceparent"

# Out: on every answer.
REQUEST_ID: Final = "Foothill-Request-Id"
TIER: Final = "Foothill-Tier"
NODE: Final = "Foothill-Node"
REASON: Final = "Foothill-Reason"
CONFIDENCE: Final = "Foothill-Confidence"
STRATUM: Final = "Foothill-Stratum"
CERTIFIED: Final = "Foothill-Certified"
DEGRADED: Final = "Foothill-Degraded"
LATE: Final = "Foothill-Late"
MODEL: Final = "Foothill-Model"
DIGEST: Final = "Foothill-Digest"
SERVER_TIMING: Final = "Server-Timing"

# Between hops only: never relayed to a caller, never believed from one.
HOP: Final = "Foothill-Hop"
LOAD: Final = "Foothill-Load"
ANSWER: Final = "Foothill-Answer"
HOP_ONLY = frozenset(name.lower() for name in (HOP, LOAD, ANSWER))

# To the fleet manager: the record of an engine that is sent.
ENGINE: Final = "Foothill-Engine"

RELAYED_IN = (
    "Content-Type",
    "Accept",
    "Inference-Header-Content-Length",
    "tracestate",
    TRACEPARENT,
    ESCALATION,
    RESIDENCY,
    IDEMPOTENCY_KEY,
)
"""The caller's headers that a hop passes on; all others stop at the first server, which also decompresses bodies.
`Inference-Header-Content-Length` is the binary-tensor extension's, see `contracts/oip.py`."""

RELAYED_OUT = (
    "Content-Type",
    "Content-Encoding",
    "Inference-Header-Content-Length",
    "Retry-After",
    "Allow",
    MODEL,
    DIGEST,
    CONFIDENCE,
    STRATUM,
    NODE,
    TIER,
    REASON,
)
"""An upstream's headers that a hop passes on to its caller; the rest it writes itself or drops."""

MAX_DEADLINE_MS: Final = 600_000.0
MAX_RESIDENCY_NAMES = 64
MAX_CAPABILITIES = 32

Escalation = Literal["auto", "never", "always"]
Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
"""Where a router's nodes are full, the last of these is refused first."""
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_TOKEN = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")
_NAME = re.compile(r"[a-z0-9][a-z0-9\-]{0,62}")


class Terms(msgspec.Struct, frozen=True):
    """What a caller asks of one request. `deadline_ms` None: the server's default; `residency` empty: no claim.
    `priority`, which is for routers, may only be lowered; `capabilities`, which are for routers too, are sorted, and a
    node needs all of them."""

    deadline_ms: float | None = None
    escalation: Escalation = "auto"
    residency: tuple[str, ...] = ()
    request_id: str = ""
    idempotency_key: str = ""
    traceparent: str = ""
    priority: Priority = "high"
    capabilities: tuple[str, ...] = ()

    def admit(self, region: str) -> bool:
        """Whether a server in `region` may have this request; "" (nobody knows where it stands) is in no claim.

        A claim speaks of where bytes are worked on, so that only the region an operator has signed or configured
        answers it. Distance and GeoIP never do: they are guesses about addresses, made for speed, and an address can
        be moved or tunnelled.
        """
        return not self.residency or region in self.residency

    def claim(self) -> dict[str, str]:
        """The residency claim as one header for the next hop, which would see only the first of several."""
        return {RESIDENCY: ",".join(self.residency)} if self.residency else {}


def parse_terms(headers: Mapping[str, str]) -> Terms:
    """Reads the caller's terms from a case-insensitive header mapping; one with `getall` may repeat a name.

    Residency claims that are repeated must all hold; another term may only be repeated in the same words. Raises
    FoothillError `bad_header` for a value out of form; unknown headers are left alone.
    """
    return Terms(
        deadline_ms=_deadline_ms(_one(headers, DEADLINE_MS)),
        escalation=_escalation(_one(headers, ESCALATION)),
        residency=_residency(_all(headers, RESIDENCY)),
        request_id=parse_request_id(headers),
        idempotency_key=_token(IDEMPOTENCY_KEY, headers.get(IDEMPOTENCY_KEY)),
        traceparent=_token(TRACEPARENT, headers.get(TRACEPARENT)),
        priority=_priority(_one(headers, PRIORITY)),
        capabilities=_capabilities(_all(headers, CAPABILITIES)),
    )


def renewed(terms: Terms, sent: Mapping[str, str]) -> Terms:
    """The terms of a request that differs from one with these in what `sent` names alone, by its proper name: its id,
    deadline, idempotency key or trace. Raises FoothillError `bad_header`."""
    return Terms(
        _deadline_ms(sent[DEADLINE_MS]) if DEADLINE_MS in sent else terms.deadline_ms,
        terms.escalation,
        terms.residency,
        _token(REQUEST_ID, sent[REQUEST_ID]) if REQUEST_ID in sent else terms.request_id,
        _token(IDEMPOTENCY_KEY, sent[IDEMPOTENCY_KEY]) if IDEMPOTENCY_KEY in sent else terms.idempotency_key,
        _token(TRACEPARENT, sent[TRACEPARENT]) if TRACEPARENT in sent else terms.traceparent,
        terms.priority,
        terms.capabilities,
    )


def lower(one: Priority, other: Priority) -> Priority:
    """The lower of both."""
    return max(one, other, key=PRIORITIES.index)


def parse_request_id(headers: Mapping[str, str]) -> str:
    """The caller's request id, or "" when it sent none. Raises FoothillError `bad_header`."""
    return _token(REQUEST_ID, headers.get(REQUEST_ID))


def relayed(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those of a case-insensitive header mapping that `names` lists, under their proper spelling.

    A value that is not printable ASCII is dropped: hops do not agree on what its bytes mean.
    """
    found = {name: headers[name] for name in names if name in headers}
    return {name: value for name, value in found.items() if value.isascii() and value.isprintable()}


def _all(headers: Mapping[str, str], name: str) -> Sequence[str]:
    """Every value under `name`. What aiohttp gives is a multidict, whose `get` would drop all but the first."""
    getall = getattr(headers, "getall", None)
    if getall is not None:
        return cast(Sequence[str], getall(name, ()))
    value = headers.get(name)
    return () if value is None else (value,)


def _one(headers: Mapping[str, str], name: str) -> str | None:
    values = _all(headers, name)
    if len({value.strip().lower() for value in values}) > 1:
        raise _bad(name, ", ".join(values), "one value: send the header once")
    return values[0] if values else None


def _deadline_ms(value: str | None) -> float | None:
    if value is None:
        return None
    # Stripped once for both: float leaves control characters that str.strip takes away.
    number = value.strip()
    milliseconds = float(number) if _DECIMAL.fullmatch(number) else 0.0
    if not 0 < milliseconds <= MAX_DEADLINE_MS:
        raise _bad(DEADLINE_MS, value, f"a number of milliseconds above 0 and at most {MAX_DEADLINE_MS:.0f}")
    return milliseconds


def _escalation(value: str | None) -> Escalation:
    if value is None:
        return "auto"
    lowered = value.strip().lower()
    if lowered not in ("auto", "never", "always"):
        raise _bad(ESCALATION, value, "one of auto, never, always")
    return cast(Escalation, lowered)


def _priority(value: str | None) -> Priority:
    if value is None:
        return "high"
    lowered = value.strip().lower()
    if lowered not in PRIORITIES:
        raise _bad(PRIORITY, value, f"one of {', '.join(PRIORITIES)}")
    return lowered


def _residency(claims: Sequence[str]) -> tuple[str, ...]:
    """The regions that every claim names: one more header may only narrow what the others admit."""
    named = [_regions(claim) for claim in claims]
    common = tuple(region for region in named[0] if all(region in other for other in named)) if named else ()
    if named and not common:
        raise _bad(RESIDENCY, ", ".join(claims), "satisfiable: the repeated headers have no region in common")
    return common


def _regions(value: str) -> tuple[str, ...]:
    regions = tuple(part.strip().lower() for part in value.split(","))
    if len(regions) > MAX_RESIDENCY_NAMES or not all(_NAME.fullmatch(region) for region in regions):
        raise _bad(RESIDENCY, value, f"at most {MAX_RESIDENCY_NAMES} region names, separated by commas")
    return regions


def _capabilities(told: Sequence[str]) -> tuple[str, ...]:
    """All that are named: one more header may only narrow."""
    named = {part.strip().lower() for value in told for part in value.split(",")}
    if len(named) > MAX_CAPABILITIES or not all(map(_NAME.fullmatch, named)):
        wanted = f"at most {MAX_CAPABILITIES} names of letters, digits and '-', separated by commas"
        raise _bad(CAPABILITIES, ", ".join(told), wanted)
    return tuple(sorted(named))


def _token(name: str, value: str | None) -> str:
    if value is None:
        return ""
    if not _TOKEN.fullmatch(value):
        raise _bad(name, value, "1 to 128 letters, digits, '_', '.', ':' or '-'")
    return value


def _bad(name: str, value: str, wanted: str) -> FoothillError:
    return FoothillError("bad_header", f"{name}: {value[:80]!r} is not {wanted}.")
