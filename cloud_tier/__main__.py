"""The cloud tier as a process: `python -m cloud_tier [CONFIG.toml]`."""

from __future__ import annotations

import asyncio
import logging
import platform
import random
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from cloud_tier.config import Config
from cloud_tier.tier import Tier
from contracts.tickets import CLOUD_AUDIENCE
from runtime.links.access.admission import HOW_TO_ASK, open_admission
from runtime.links.access.ticket_keys import TicketKeys
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import fetch_bundle
from runtime.links.bundles.store import RESERVE_BYTES, BundleStore
from runtime.links.http.exposure import check_exposure
from runtime.links.http.https import listener_context
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.http.upstream import Upstreams
from runtime.links.process.settings import SettingsError, load
from runtime.links.process.state_dir import held
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.key_files import find_hop_key_file, read_hop_key, read_token
from runtime.links.trust.roots import open_fleet
from runtime.links.trust.tuf import TrustedFleet
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.engines.providers import Wish
from runtime.serving.models.hosting import ModelHost
from runtime.serving.repository import StoredBundles

log = logging.getLogger(__name__)

STORE_DIR, PROVIDERS_DIR = "store", "providers"
_CPU_TARGETS = {"x86_64": "cpu-x86", "amd64": "cpu-x86", "aarch64": "cpu-arm", "arm64": "cpu-arm"}


async def run(config: Config, *, ready: Callable[[str], None] | None = None) -> None:
    """Serves until a signal; `ready` is called once it listens. Raises SettingsError.

    It answers 503 on `/v2/health/ready` until every configured model is served.
    """
    protected = config.auth.asks or bool(config.https.client_ca_file)
    check_exposure(config.host, name=config.name, protected=protected, insecure=config.insecure, remedy=HOW_TO_ASK)
    tls = listener_context(config.https)
    with held(Path(config.state_dir)):
        await serve_app(build(config), config.host, config.port, name=config.name, ready=ready, tls=tls)


def build(config: Config) -> web.Application:
    """The application over all its parts; its models come up once it has started."""
    target = config.target or _own_target()
    settings = _serving_settings(config)
    store = BundleStore(Path(config.state_dir) / STORE_DIR)
    store.sweep()
    host = ModelHost(expected=config.models, max_waiting=config.max_waiting, threads=config.threads)
    wish = Wish(config.provider, config.provider_fallback, Path(config.state_dir) / PROVIDERS_DIR, RESERVE_BYTES)
    bundles = StoredBundles(host, store, target=target, threads=config.threads, wish=wish)
    trust = _Trust(config)
    keys = TicketKeys(trust.fleet) if config.auth.tickets else None
    app = create_app(
        host,
        settings,
        holder=None,
        telemetry=Telemetry(),
        repository=bundles,
        admission=open_admission(
            config.auth,
            keys=keys,
            audience=CLOUD_AUDIENCE,
            admin_token=settings.admin_token,
            hop_key=settings.hop_key,
        ),
    )
    if keys is not None:
        keys.live_in(app)
    app.cleanup_ctx.append(_life(config, trust, host, store, bundles))
    return app


def _life(
    config: Config, trust: _Trust, host: ModelHost, store: BundleStore, bundles: StoredBundles
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def life(_: web.Application) -> AsyncIterator[None]:
        async def fetch(model: str, digest: str) -> Path:
            ways = http_ways(config.fleet_url, tls=config.tls)
            return await fetch_bundle(store, await trust.fleet(), ways, model, digest, None)

        tier = Tier(config.models, trust=trust.fleet, fetch=fetch, serve=bundles.serve, rng=random.Random())
        rising = asyncio.create_task(tier.bring_up())
        rising.add_done_callback(_tell_defect)
        yield
        rising.cancel()
        await asyncio.gather(rising, return_exceptions=True)
        await trust.close()
        await host.close()

    return life


def _tell_defect(rising: asyncio.Task[None]) -> None:
    if not rising.cancelled() and (defect := rising.exception()) is not None:
        log.error("the models stay as they are: this is a defect, please report it", exc_info=defect)


class _Trust:
    """The fleet's trusted metadata, opened once there is a root for it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._upstreams: Upstreams | None = None
        self._opening = asyncio.Lock()
        self._fleet: TrustedFleet | None = None

    async def fleet(self) -> TrustedFleet:
        """Raises FoothillError `unavailable` while there is no root."""
        async with self._opening:
            if self._fleet is None:
                state_dir, fleet_url = Path(self._config.state_dir), self._config.fleet_url
                named = Path(self._config.root) if self._config.root else None
                self._upstreams = self._upstreams or Upstreams()
                self._fleet = await open_fleet(named, state_dir, fleet_url, self._upstreams, self._config.tls)
            return self._fleet

    async def close(self) -> None:
        if self._upstreams is not None:
            await self._upstreams.close()


def _serving_settings(config: Config) -> ServingSettings:
    hop_key_file = find_hop_key_file(config.hop_key_file)
    if not hop_key_file:
        log.warning("no hop_key_file is set: no hop is believed, so that routers and nodes cannot audit their answers")
    return ServingSettings(
        node=config.name,
        tier="cloud",
        region=config.region,
        max_body_bytes=config.max_body_bytes,
        max_pixels=config.max_pixels,
        default_deadline_ms=config.default_deadline_ms,
        hop_key=read_hop_key(Path(hop_key_file)) if hop_key_file else None,
        admin_token=read_token(Path(config.admin_token_file)) if config.admin_token_file else "",
    )


def _own_target() -> str:
    machine = platform.machine().lower()
    if machine not in _CPU_TARGETS:
        raise SettingsError(f"No target is known for a {machine} processor. Set `target` in the configuration.")
    return _CPU_TARGETS[machine]


def main(path: str | None = None, *, insecure: bool = False) -> None:
    """`insecure` as the key of the configuration."""
    configure_logging()
    run_loop(_run_configured(Path(path) if path else None, insecure))


async def _run_configured(path: Path | None, insecure: bool) -> None:
    config = load(path, Config)
    await run(msgspec.structs.replace(config, insecure=config.insecure or insecure))


if __name__ == "__main__":
    main(*sys.argv[1:2])
