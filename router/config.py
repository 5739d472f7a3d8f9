"""The router's configuration: one TOML file, see `docs/config.md`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from contracts.headers import MAX_DEADLINE_MS
from contracts.messages import Capabilities
from contracts.places import Place
from contracts.tickets import MAX_LIFE_S, Count
from contracts.topics import NODE_NAME
from runtime.links.http.https import HttpsConfig
from runtime.links.trust.tls import TlsConfig

MOST_WORKERS = 256
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Cost = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
_PATH = re.compile(r"/[!-~]*")
Positive = Annotated[float, msgspec.Meta(gt=0)]


class StaticNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node that is told, not discovered, and serves `models`; degrees are WGS 84.

    `health_path` is what probes GET; "": it is not probed, and always taken for online.
    """

    name: str
    url: str
    region: str
    lat: float
    lon: float
    models: tuple[str, ...]
    health_path: str = "/v2/health/ready"
    cost_per_request: Cost = 0.0
    capabilities: Capabilities = ()

    def __post_init__(self) -> None:
        Place(self.lat, self.lon)
        if not NODE_NAME.fullmatch(self.name) or not NODE_NAME.fullmatch(self.region):
            raise ValueError(f"{self.name!r} in {self.region!r}: names are lower-case letters, digits and '-'.")
        _check_url("url", self.url, ("http", "https"))
        if self.health_path and not _PATH.fullmatch(self.health_path):
            raise ValueError(f"health_path {self.health_path!r} of {self.name} is no path: write /v2/health/ready.")


class TicketConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tickets of leases: `key_file` empty gives none. Limits are for each server of a lease; 0 is none."""

    key_file: str = ""
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LIFE_S)] = 300.0
    requests: Count = 0
    escalations: Count = 0
    bytes: Count = 0


class AccessLogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The access log: `path` empty keeps none, "-" is standard output. `sample` is the share of successes that are
    told; failures always are."""

    path: str = ""
    client: Literal["none", "network", "full"] = "network"
    sample: Share = 1.0


class TracingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Spans for an OpenTelemetry collector at `endpoint` (OTLP over HTTP; empty: none). `sample` is the share of
    traces; with `follow_callers` those are recorded too whose caller does. `headers_file` has lines `Name: value`."""

    endpoint: str = ""
    service_name: str = "foothill-router"
    sample: Share = 0.01
    follow_callers: bool = False
    headers_file: str = ""

    def __post_init__(self) -> None:
        if self.endpoint:
            _check_url("tracing.endpoint", self.endpoint, ("http", "https"))


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every key has a default; `foothill up` writes them all.

    Nodes are discovered over `broker_url` (empty: off) and believed as the fleet at `fleet_url` signs; `root` is the
    path of its TUF root metadata (empty: taken from the fleet at the first start and pinned under `state_dir`).
    `nodes` are static ones, with or without a broker, probed every `probe_interval_s`. `place` is where this router
    stands, None if nobody knows.
    `region` and `cloud_region` are the regions of this router and of the cloud tier; "" lies in no residency claim.
    Costs are in a unit of the operator's own, the same for all; a node that costs one more than another has to be
    faster by `ms_per_cost_unit` to be as good.
    `geoip_database` is the path of a City database (MaxMind format), `hop_key_file` that of the key in hex (empty: that
    of a fleet manager which runs from this directory with its defaults, if there is one). `tokens_file` names who may
    call (empty: everybody); without it, this router listens beyond this machine only when `insecure`. `workers` 0: one
    for each core that this process may run on; with 1 all is done in one process.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    name: str = "router"
    region: str = ""
    place: Place | None = None
    state_dir: str = "state/router"
    fleet_url: str = "http://127.0.0.1:8070"
    broker_url: str = "mqtt://127.0.0.1:1883"
    root: str = ""
    nodes: tuple[StaticNode, ...] = ()
    probe_interval_s: Positive = 5.0
    probe_timeout_s: Positive = 1.0
    cloud_urls: tuple[str, ...] = ("http://127.0.0.1:8090",)
    cloud_region: str = ""
    cloud_cost_per_request: Cost = 0.0
    ms_per_cost_unit: Cost = 0.0
    connect_to: dict[str, str] = {}
    geoip_database: str = ""
    trusted_proxies: tuple[str, ...] = ()
    hop_key_file: str = ""
    audit_rate: Share = 0.05
    default_deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=MAX_DEADLINE_MS)] = 10_000.0
    lease_ttl_s: Positive = 30.0
    max_body_bytes: Annotated[int, msgspec.Meta(gt=0)] = 16 << 20
    insecure: bool = False
    workers: Annotated[int, msgspec.Meta(ge=0, le=MOST_WORKERS)] = 0
    tokens_file: str = ""
    access_log: AccessLogConfig = AccessLogConfig()
    tracing: TracingConfig = TracingConfig()
    tickets: TicketConfig = TicketConfig()
    https: HttpsConfig = HttpsConfig()
    tls: TlsConfig = TlsConfig()

    def __post_init__(self) -> None:
        for url in self.cloud_urls:
            _check_url("cloud_urls", url, ("http", "https"))
        if self.broker_url:
            _check_url("broker_url", self.broker_url, ("mqtt", "mqtts"))
            _check_url("fleet_url", self.fleet_url, ("http", "https"))
        if not NODE_NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} is not lower-case letters, digits and '-', at most 63.")


def _check_url(key: str, url: str, schemes: tuple[str, ...]) -> None:
    scheme, separator, rest = url.partition("://")
    if scheme not in schemes or not separator or not rest or any(character.isspace() for character in url):
        raise ValueError(f"{key}: {url!r} is not a URL; write {schemes[0]}://HOST:PORT.")
