"""The configuration of an edge node. What it is to the fleet (name, keys, place) comes from its enrolment."""

from __future__ import annotations

import msgspec


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of `edge.toml`; docs/config.md explains each. `fleet_url`, `broker_url` and `cloud_urls` replace what the
    enrolment says, where the node reaches them by another way."""

    host: str = "127.0.0.1"
    port: int = 8100
    state_dir: str = "./state/edge"
    fleet_url: str = ""
    broker_url: str = ""
    cloud_urls: tuple[str, ...] = ()
    cloud_region: str = ""
    connect_to: dict[str, str] = {}
    target: str = ""
    threads: int = 1
    max_body_bytes: int = 16 << 20
    default_deadline_ms: float = 10_000.0
    max_waiting: int = 256
    audit_rate: float = 0.05
    probation_s: float = 5.0
    probation_requests: int = 100
    reserve_bytes: int = 64 << 20
    admin_token_file: str = ""
