"""A node without a fleet: its operator's own bundles, from directories that are named by digest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import Counter

from contracts.errors import FoothillError
from contracts.manifest import FILE, digest_of
from contracts.messages import Audit, Late
from edge_node.assembly import STORE_DIR, Node
from edge_node.certificates import seed_certificate
from edge_node.config import AloneConfig, Config, LocalBundle
from edge_node.late import LatePart
from edge_node.pipelines import Pipelines
from runtime.links.access.admission import open_admission
from runtime.links.bundles.store import BundleStore
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.key_files import read_hop_key, read_token
from runtime.links.trust.tls import own_context
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.engines.fingerprint import detect
from runtime.serving.engines.providers import Wish
from runtime.serving.models.hosting import ModelHost
from runtime.serving.repository import StoredBundles


async def build_alone(config: Config, alone: AloneConfig, state_dir: Path, base: Path) -> Node:
    """Nothing of it runs yet; relative paths begin at `base`. Raises SettingsError, or FoothillError."""
    telemetry, certificates = Telemetry(), Certificates()
    host = ModelHost(max_waiting=config.max_waiting, threads=config.threads)
    store = BundleStore(state_dir / STORE_DIR, reserve_bytes=config.reserve_bytes)
    fingerprint = await asyncio.to_thread(
        detect, target=config.target, provider=config.provider, fallback=config.provider_fallback
    )
    wish = Wish(config.provider, config.provider_fallback)
    bundles = StoredBundles(host, store, target=fingerprint.target, threads=config.threads, wish=wish)
    upstreams = Upstreams(connect_to=config.connect_to, ssl=own_context(config.tls))
    holder = _holder(config, alone, upstreams, certificates, telemetry)
    settings = _settings(config, alone)
    late = _late(config, alone, holder, telemetry, state_dir)
    app = create_app(
        host,
        settings,
        holder=holder,
        telemetry=telemetry,
        repository=bundles,
        admission=open_admission(config.auth, keys=None, audience=alone.node, admin_token=settings.admin_token),
        spool=late.spooling if late is not None else None,
    )
    if late is not None:
        late.live_in(app)
    app.on_cleanup.append(_closing(holder, upstreams, host))

    async def restore() -> None:
        for model, local in alone.bundles.items():
            await _serve(model, local, store, bundles, base)
            seed = seed_certificate(model, host.get(model).loaded.artifact)
            if seed is not None:
                certificates.put(seed)

    return Node(app, restore, Pipelines(host, holder, settings, telemetry, late=late), settings, telemetry)


async def _serve(model: str, local: LocalBundle, store: BundleStore, bundles: StoredBundles, base: Path) -> None:
    """Raises FoothillError that names the table."""
    try:
        if not store.has(local.digest):
            await asyncio.to_thread(_take_in, store, base / local.path, local.digest)
        await bundles.serve(model, local.digest)
    except FoothillError as error:
        raise FoothillError(error.code, f"[alone.bundles.{model}]: {error.message}") from error


def _take_in(store: BundleStore, source: Path, digest: str) -> None:
    try:
        found = digest_of((source / FILE).read_bytes())
        if found != digest:
            raise FoothillError(
                "bad_bundle", f"{source} holds the bundle {found}, and not {digest}: correct the digest or the path."
            )
        store.add_directory(source)
    except OSError as error:
        raise FoothillError("bad_bundle", f"{source} cannot be read ({error.strerror}).") from error


def _holder(
    config: Config, alone: AloneConfig, upstreams: Upstreams, certificates: Certificates, telemetry: Telemetry
) -> Holder:
    """Without a fleet nobody certifies by audits, and a bundle's own rule holds: they are counted, for its operator."""
    return Holder(
        node=alone.node,
        cloud_urls=config.cloud_urls,
        cloud_region=config.cloud_region,
        upstreams=upstreams,
        certificates=certificates,
        hop_key=read_hop_key(Path(alone.hop_key_file), "alone.hop_key_file") if alone.hop_key_file else b"",
        hop_name="node",
        publish_audit=_counting(telemetry),
        telemetry=telemetry,
        rng=random.Random(),
        audit_rate=alone.audit_rate,
    )


def _counting(telemetry: Telemetry) -> Callable[[Audit], None]:
    pairs = Counter(
        "foothill_edge_agreements_total",
        "Audited answers of a node without a fleet, by whether the cloud agrees",
        ["model", "agrees"],
        registry=telemetry.registry,
    )

    def count(audit: Audit) -> None:
        agrees = audit.edge_answer == audit.cloud_answer
        pairs.labels(audit.model, str(agrees).lower()).inc()

    return count


def _settings(config: Config, alone: AloneConfig) -> ServingSettings:
    return ServingSettings(
        node=alone.node,
        tier="edge",
        region=alone.region,
        max_body_bytes=config.max_body_bytes,
        max_pixels=config.max_pixels,
        default_deadline_ms=config.default_deadline_ms,
        admin_token=read_token(Path(config.admin_token_file)) if config.admin_token_file else "",
    )


def _late(config: Config, alone: AloneConfig, holder: Holder, telemetry: Telemetry, state_dir: Path) -> LatePart | None:
    if not (config.spool.max_bytes and config.cloud_urls):
        return None
    return LatePart(
        state_dir,
        config.spool,
        node=alone.node,
        ask=holder.ask_late,
        publish=_published,
        registry=telemetry.registry,
        reserve_bytes=config.reserve_bytes,
    )


def _published(late: Late) -> bool:
    """Nobody waits for it but who has asked."""
    return True


def _closing(
    holder: Holder, upstreams: Upstreams, host: ModelHost
) -> Callable[[web.Application], Coroutine[Any, Any, None]]:
    async def close(_: web.Application) -> None:
        await holder.close()
        await upstreams.close()
        await host.close()

    return close
