"""A process that serves bundles as an edge node or the cloud tier does: `python -m benchmarks.node CONFIG.json`.

Its routes, batcher and holder are the product's; what is left out is the fleet: no broker, no enrolment, no updates.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web

from benchmarks.told import tell_ready
from contracts.messages import Audit
from edge_node.certificates import seed_certificate
from model_compiler import pack
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.engines.fingerprint import detect
from runtime.serving.engines.providers import Wish
from runtime.serving.models.golden import open_tested
from runtime.serving.models.hosting import ModelHost


class NodeConfig(msgspec.Struct, frozen=True):
    """`bundles` are packed directories; `hop_key` in hex; the URL is written to `ready` once it listens."""

    tier: Literal["edge", "cloud"]
    bundles: tuple[str, ...]
    hop_key: str
    ready: str
    threads: int = 1


async def run(config: NodeConfig) -> None:
    async with _serving(config) as app:
        await serve_app(app, "127.0.0.1", 0, name=config.tier, ready=lambda url: tell_ready(config.ready, url))


@asynccontextmanager
async def _serving(config: NodeConfig) -> AsyncIterator[web.Application]:
    """Only an edge node settles what it answers; it has no cloud here, so that nothing is escalated."""
    host, upstreams = ModelHost(threads=config.threads), Upstreams()
    certificates, telemetry = Certificates(), Telemetry()
    hop_key = bytes.fromhex(config.hop_key)
    target, wish = detect().target, Wish(cache=Path(config.ready).with_suffix(".kept"))
    for directory in config.bundles:
        packed = pack.read(Path(directory))
        loaded = open_tested(packed.directory, packed.digest, target=target, threads=config.threads, wish=wish)
        seed = seed_certificate(packed.manifest.model, loaded.artifact)
        if seed is not None:
            certificates.put(seed)
        await host.activate(packed.manifest.model, loaded)
    holder = Holder(
        node=config.tier,
        cloud_urls=(),
        upstreams=upstreams,
        certificates=certificates,
        hop_key=hop_key,
        hop_name="node",
        publish_audit=_unread,
        telemetry=telemetry,
        rng=random.Random(0),
        audit_rate=0.0,
    )
    settings = ServingSettings(node=config.tier, tier=config.tier, hop_key=hop_key)
    try:
        yield create_app(host, settings, holder=holder if config.tier == "edge" else None, telemetry=telemetry)
    finally:
        await holder.close()
        await upstreams.close()
        await host.close()


def _unread(audit: Audit) -> None:
    """No audits are drawn, so none arrive."""


if __name__ == "__main__":
    configure_logging()
    run_loop(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=NodeConfig)))
