"""The access log: one JSON object a line for each request, written off the event loop."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Literal, NamedTuple

import msgspec

from contracts.timing import TOTAL, parse_server_timing
from contracts.traces import parse_traceparent, trace_id_of
from router.config import AccessLogConfig
from router.places.client_address import Address
from runtime.links.http.exchanges import Clock
from runtime.links.process.line_file import LineFile
from runtime.links.process.settings import SettingsError

Shown = Literal["none", "network", "full"]
_V4_BITS, _V6_BITS = 24, 48


class Line(msgspec.Struct, frozen=True):
    """One request. `time` is when its answer was ready, ISO 8601 in UTC; bytes are those of bodies; `phases_ms` are
    those of Server-Timing without the total. What nobody knows is empty, and so is `client` where it is not told."""

    time: str
    request_id: str
    trace_id: str
    method: str
    route: str
    model: str
    tenant: str
    client: str
    status: int
    tier: str
    node: str
    reason: str
    region: str
    bytes_in: int
    bytes_out: int
    phases_ms: dict[str, float]
    total_ms: float


class Kind(NamedTuple):
    """What lines have in common. `tier`, `node`, `reason` and `region` are of the answer."""

    method: str
    route: str
    model: str
    client: str
    tenant: str = ""
    status: int = 200
    tier: str = "none"
    node: str = ""
    reason: str = ""
    region: str = ""


class Noted(NamedTuple):
    """One request as it is noted: what can be made of it later is made then. `traceparent` is what its caller sent, or
    the router's own; `written` are times as a header has them, beside those in `phases_ms`."""

    kind: Kind
    at_s: float
    request_id: str
    traceparent: str
    bytes_in: int
    bytes_out: int
    phases_ms: Mapping[str, float]
    written: str = ""


class AccessLog:
    """Failures are all noted, of successes a share. `wall` is unix time in seconds. Raises SettingsError."""

    def __init__(self, config: AccessLogConfig, rng: random.Random, wall: Clock) -> None:
        try:
            self.lines: LineFile[Noted] = LineFile(config.path, rendered)
        except OSError as error:
            raise SettingsError(
                f"access_log.path {config.path} cannot be written ({error.strerror}). Correct it, or its permissions."
            ) from error
        self._shown: Shown = config.client
        self._sample = config.sample
        self._rng = rng
        self.wall = wall

    @property
    def draws(self) -> bool:
        """Whether the next success is to be noted."""
        return self._sample >= 1.0 or self._rng.random() < self._sample

    def note(self, noted: Noted) -> None:
        if noted.kind.status >= 400 or self.draws:
            self.lines.note(noted)

    def client(self, address: Address | None) -> str:
        return shown(address, self._shown)


def shown(address: Address | None, how: Shown) -> str:
    """An address as far as it may be told: `network` is its /24 or /48, which homes and offices share."""
    if address is None or how == "none":
        return ""
    if how == "full":
        return str(address)
    if isinstance(address, IPv4Address):
        return str(IPv4Network((int(address), _V4_BITS), strict=False))
    return str(IPv6Network((int(address), _V6_BITS), strict=False))


def rendered(noted: Noted) -> bytes:
    kind, phases_ms = noted.kind, {**noted.phases_ms, **parse_server_timing(noted.written)}
    total_ms = phases_ms.pop(TOTAL, 0.0)
    span = parse_traceparent(noted.traceparent)
    line = Line(
        time=_iso(noted.at_s),
        request_id=noted.request_id,
        trace_id=span.trace_id if span is not None else trace_id_of(noted.request_id),
        method=kind.method,
        route=kind.route,
        model=kind.model,
        tenant=kind.tenant,
        client=kind.client,
        status=kind.status,
        tier=kind.tier,
        node=kind.node,
        reason=kind.reason,
        region=kind.region,
        bytes_in=noted.bytes_in,
        bytes_out=noted.bytes_out,
        phases_ms=_rounded(phases_ms),
        total_ms=round(total_ms, 3),
    )
    return msgspec.json.encode(line) + b"\n"


def _rounded(phases_ms: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(ms, 3) for phase, ms in phases_ms.items()}


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
