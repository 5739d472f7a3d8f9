"""The fleet manager's configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleet.broker import BrokerConfig
from fleet.chunks import ChunkSettings
from fleet.engines import EngineSettings
from fleet.judging.aims import GateSettings
from fleet.rollouts.plan import Policy
from fleet.signing import Lifetimes
from runtime.links.trust.tls import TlsConfig


class FleetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`broker_url` empty: a broker of its own is started as `broker` says.

    `node_broker_url` is what nodes are told when they join, where they reach the broker by another address than the
    fleet manager does; `cloud_urls` where they escalate to. A node's desired document is renewed at half of
    `desired_ttl_s`. `policy` and `silence_s` are the defaults of a rollout.
    """

    host: str = "127.0.0.1"
    port: int = 8070
    state_dir: str = "state/fleet"
    broker_url: str = ""
    node_broker_url: str = ""
    broker: BrokerConfig = BrokerConfig()
    cloud_urls: tuple[str, ...] = ("http://127.0.0.1:8090",)
    max_blob_bytes: int = 8 << 30
    token_ttl_s: float = 3600.0
    desired_ttl_s: float = 7 * 86_400.0
    silence_s: Annotated[float, msgspec.Meta(gt=0)] = 900.0
    engines: EngineSettings = EngineSettings()
    chunks: ChunkSettings = ChunkSettings()
    tls: TlsConfig = TlsConfig()
    policy: Policy = Policy()
    gate: GateSettings = GateSettings()
    lifetimes: Lifetimes = Lifetimes()
