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


class Kind(msgspec.Struct):
    """What lines have in common, in their order: of the request, and of its answer."""

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
            self.lines: LineFile[Noted] = LineFile(config.path, Renderer())
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


class Renderer:
    """Makes lines, in one thread. What came before with the same kind, or in the same second, is written already.

    A line is one JSON object: `time` (when the answer was ready, ISO 8601 in UTC), `request_id`, `trace_id`, the fields
    of Kind, `bytes_in` and `bytes_out` (of bodies), `phases_ms` (as in Server-Timing, without the total), `total_ms`.
    What nobody knows is empty, and so is `client` where it is not told.
    """

    def __init__(self) -> None:
        self._kind: Kind | None = None
        self._alike = ""
        self._second = -1
        self._date = ""

    def __call__(self, noted: Noted) -> bytes:
        phases_ms = {**noted.phases_ms, **parse_server_timing(noted.written)}
        total_ms = phases_ms.pop(TOTAL, 0.0)
        phases = ",".join([f'"{phase}":{ms:.3f}' for phase, ms in phases_ms.items()])
        span = parse_traceparent(noted.traceparent) if noted.traceparent else None
        trace_id = span.trace_id if span is not None else trace_id_of(noted.request_id)
        return (
            f'{{"time":"{self._time(noted.at_s)}","request_id":"{noted.request_id}","trace_id":"{trace_id}",'
            f'{self._alike_of(noted.kind)},"bytes_in":{noted.bytes_in},"bytes_out":{noted.bytes_out},'
            f'"phases_ms":{{{phases}}},"total_ms":{total_ms:.3f}}}\n'
        ).encode()

    def _alike_of(self, kind: Kind) -> str:
        if kind is not self._kind:
            self._kind, self._alike = kind, msgspec.json.encode(kind)[1:-1].decode()
        return self._alike

    def _time(self, at_s: float) -> str:
        second, milliseconds = divmod(int(at_s * 1000.0), 1000)
        if second != self._second:
            self._second = second
            self._date = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._date}.{milliseconds:03d}Z"
