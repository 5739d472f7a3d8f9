"""How a node gets what its fleet has published: by HTTP, in chunks over MQTT, or by whichever can be reached."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from tuf.ngclient.fetcher import FetcherInterface

from contracts.messages import MAX_CHUNK_MESSAGE_BYTES
from edge_node.config import Config
from edge_node.enrol import TRUST_DIR, Enrolment
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import Ways
from runtime.links.bundles.two_ways import Reach, TwoFetchers, two_ways
from runtime.links.chunks.fetcher import ChunkFetcher
from runtime.links.chunks.line import ChunkLine
from runtime.links.chunks.way import chunk_ways
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust.tls import TlsConfig
from runtime.links.trust.tuf import HttpFetcher, known_keys


class FleetWay(NamedTuple):
    """For contents, and for signed metadata."""

    contents: Ways
    fetcher: FetcherInterface


def open_way(config: Config, enrolment: Enrolment, state_dir: Path, fleet_url: str) -> FleetWay:
    """Call it on the event loop that the node lives on."""
    http = FleetWay(http_ways(fleet_url, tls=config.tls), HttpFetcher(tls=config.tls))
    if config.fetch == "http":
        return http
    line = ChunkLine(
        node=enrolment.node,
        private_key=bytes.fromhex(enrolment.private_key),
        open_port=partial(_open_port, config.broker_url or enrolment.broker_url, enrolment.node, config.tls),
        keys=partial(known_keys, state_dir / TRUST_DIR, "chunk"),
    )
    chunks = FleetWay(chunk_ways(line), ChunkFetcher(line, fleet_url))
    if config.fetch == "mqtt":
        return chunks
    reach = Reach()
    return FleetWay(two_ways(http.contents, chunks.contents, reach), TwoFetchers(http.fetcher, chunks.fetcher, reach))


def _open_port(broker_url: str, node: str, tls: TlsConfig) -> MqttPort:
    return MqttPort(broker_url, f"node-{node}-chunks", max_packet_bytes=MAX_CHUNK_MESSAGE_BYTES, tls=tls)
