"""An edge node as a process: `python -m edge_node [CONFIG.toml]`."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiohttp import web

from contracts.errors import FoothillError
from edge_node.agent import Agent
from edge_node.certificates import NodeCertificates, seed_certificate
from edge_node.config import Config
from edge_node.engines import Engines
from edge_node.enrol import TRUST_DIR, Enrolment, load_enrolment
from edge_node.late import LatePart
from edge_node.latency import LatencyRule
from edge_node.loader import Loader
from edge_node.metrics import NodeMetrics, VitalMetrics
from edge_node.probation import Rule
from edge_node.room import Room
from edge_node.slots import SlotFile
from edge_node.updater import Updater
from edge_node.vitals import available_bytes, read_vitals
from edge_node.way import open_way
from edge_node.workshop import open_engines
from runtime.links.admission import HOW_TO_ASK, Admission, open_admission
from runtime.links.bundle_fetch import fetch_bundle
from runtime.links.bundles import BundleStore
from runtime.links.exposure import check_exposure
from runtime.links.holder import Holder
from runtime.links.https import listener_context
from runtime.links.key_files import read_token
from runtime.links.mqtt import MqttPort, Will
from runtime.links.serve import configure_logging, run_loop, serve_app
from runtime.links.settings import SettingsError, load
from runtime.links.state_dir import held
from runtime.links.telemetry import Telemetry
from runtime.links.ticket_keys import TicketKeys
from runtime.links.tls import TlsConfig, checked, own_context
from runtime.links.trust import TrustedFleet
from runtime.links.upstream import Upstreams
from runtime.serving.app import create_app
from runtime.serving.fingerprint import detect
from runtime.serving.golden import open_tested
from runtime.serving.hosting import ModelHost, engine_slots
from runtime.serving.loaded import LoadedModel
from runtime.serving.providers import Wish
from runtime.serving.repository import StoredBundles
from runtime.serving.settings import ServingSettings

log = logging.getLogger(__name__)

STORE_DIR, PROVIDERS_DIR = "store", "providers"


async def run(config: Config, *, ready: Callable[[str], None] | None = None) -> None:
    """The whole life of a node: serve what it has, then listen to its fleet. Raises SettingsError."""
    state_dir = Path(config.state_dir)
    protected = config.auth.asks or bool(config.https.client_ca_file)
    check_exposure(config.host, name="edge node", protected=protected, insecure=config.insecure, remedy=HOW_TO_ASK)
    tls = listener_context(config.https)
    with _explained(), held(state_dir):
        enrolment = load_enrolment(state_dir)
        node = await build(config, enrolment, state_dir)
        await node.updater.restore()
        await serve_app(node.app, config.host, config.port, name=enrolment.node, ready=ready, tls=tls)


class Node(NamedTuple):
    """A node put together; nothing of it runs yet."""

    app: web.Application
    updater: Updater


async def build(config: Config, enrolment: Enrolment, state_dir: Path) -> Node:
    fingerprint = await asyncio.to_thread(detect, target=config.target, provider=config.provider)
    wish = Wish(config.provider, config.provider_fallback, state_dir / PROVIDERS_DIR)
    telemetry = Telemetry()
    host = ModelHost(max_waiting=config.max_waiting, slots=engine_slots(config.threads))
    store = BundleStore(state_dir / STORE_DIR, reserve_bytes=config.reserve_bytes)
    fleet_url = config.fleet_url or enrolment.fleet_url
    way = open_way(config, enrolment, state_dir, fleet_url)
    trust = TrustedFleet(state_dir / TRUST_DIR, fleet_url, enrolment.root, fetcher=way.fetcher)
    certificates = await asyncio.to_thread(NodeCertificates, state_dir, partial(trust.keys, "certificate"))
    updater = Updater(
        node=enrolment.node,
        store=store,
        slots=SlotFile(state_dir),
        host=host,
        fetch=partial(fetch_bundle, store, trust, way.contents),
        loader=_loader(config, store, host, fingerprint.target, wish),
        rule=Rule(config.probation_s, config.probation_requests),
        serving=partial(_seed, certificates),
    )
    NodeMetrics(telemetry.registry, updater)
    vitals = partial(read_vitals, store.free_bytes)
    VitalMetrics(telemetry.registry, vitals)
    agent = Agent(
        node=enrolment.node,
        private_key=bytes.fromhex(enrolment.private_key),
        open_port=partial(_open_port, config.broker_url or enrolment.broker_url, enrolment.node, checked(config.tls)),
        updater=updater,
        trust=trust,
        certificates=certificates,
        fingerprint=fingerprint,
        load=host.load,
        vitals=vitals,
    )
    engines = open_engines(
        config,
        fingerprint,
        state_dir=state_dir,
        private_key=bytes.fromhex(enrolment.private_key),
        fleet_url=fleet_url,
        trust=trust,
        bundles=store,
        host=host,
        updater=updater,
        wish=wish,
    )
    upstreams = Upstreams(connect_to=config.connect_to, ssl=own_context(config.tls))
    holder = _holder(config, enrolment, upstreams, certificates, agent, telemetry)
    repository = StoredBundles(host, store, target=fingerprint.target, threads=config.threads, wish=wish)
    late = _late(config, state_dir, agent, holder, telemetry)
    keys = TicketKeys(partial(_at_hand, trust)) if config.auth.tickets else None
    app = _app(config, enrolment, host, holder, telemetry, repository, keys, late)
    _live_with(app, agent, holder, upstreams, host, engines)
    return Node(app, updater)


def _app(
    config: Config,
    enrolment: Enrolment,
    host: ModelHost,
    holder: Holder,
    telemetry: Telemetry,
    repository: StoredBundles,
    keys: TicketKeys | None,
    late: LatePart | None,
) -> web.Application:
    """The routes, with whoever asks who calls, and with what is answered late."""
    settings = _serving_settings(config, enrolment)
    app = create_app(
        host,
        settings,
        holder=holder,
        telemetry=telemetry,
        repository=repository,
        admission=_admission(config, settings, keys),
        spool=late.spooling if late is not None else None,
    )
    for part in (keys, late):
        if part is not None:
            part.live_in(app)
    return app


def _loader(config: Config, store: BundleStore, host: ModelHost, target: str, wish: Wish) -> Loader:
    return Loader(
        store,
        host,
        partial(open_tested, target=target, threads=config.threads, wish=wish),
        target=target,
        room=Room(available_bytes, config.memory_reserve_bytes, config.memory_short),
        latency=LatencyRule(config.max_slowdown, config.default_deadline_ms),
        wish=wish,
    )


def _admission(config: Config, settings: ServingSettings, keys: TicketKeys | None) -> Admission | None:
    return open_admission(
        config.auth,
        keys=keys,
        audience=settings.node,
        admin_token=settings.admin_token,
        hop_key=settings.hop_key,
    )


def _late(config: Config, state_dir: Path, agent: Agent, holder: Holder, telemetry: Telemetry) -> LatePart | None:
    if not config.spool.max_bytes:
        return None
    return LatePart(
        state_dir,
        config.spool,
        node=agent.node,
        ask=holder.ask_late,
        publish=agent.publish_late,
        registry=telemetry.registry,
        reserve_bytes=config.reserve_bytes,
    )


def _holder(
    config: Config,
    enrolment: Enrolment,
    upstreams: Upstreams,
    certificates: NodeCertificates,
    agent: Agent,
    telemetry: Telemetry,
) -> Holder:
    return Holder(
        node=enrolment.node,
        cloud_urls=config.cloud_urls or enrolment.cloud_urls,
        cloud_region=config.cloud_region,
        upstreams=upstreams,
        certificates=certificates.live,
        hop_key=bytes.fromhex(enrolment.hop_key),
        hop_name="node",
        publish_audit=agent.publish_audit,
        telemetry=telemetry,
        rng=random.Random(),
        audit_rate=config.audit_rate,
    )


def _open_port(broker_url: str, node: str, tls: TlsConfig, will: Will) -> MqttPort:
    try:
        return MqttPort(broker_url, f"node-{node}", will=will, tls=tls)
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error


async def _at_hand(trust: TrustedFleet) -> TrustedFleet:
    return trust


def main(path: str | None = None, *, insecure: bool = False) -> None:
    """`insecure` as the key of the configuration."""
    configure_logging()
    run_loop(_run_configured(Path(path) if path else None, insecure))


async def _run_configured(path: Path | None, insecure: bool) -> None:
    config = load(path, Config)
    await run(msgspec.structs.replace(config, insecure=config.insecure or insecure))


def _seed(certificates: NodeCertificates, loaded: LoadedModel) -> None:
    seed = seed_certificate(loaded.manifest.model, loaded.artifact)
    if seed is not None:
        certificates.serve(seed)


def _live_with(
    app: web.Application,
    agent: Agent,
    holder: Holder,
    upstreams: Upstreams,
    host: ModelHost,
    engines: Engines | None,
) -> None:
    """Ties the parts' lives to the application's."""

    async def start(_: web.Application) -> None:
        await agent.start()
        if engines is not None:
            engines.start()

    async def drain(_: web.Application) -> None:
        agent.drain()

    async def stop(_: web.Application) -> None:
        if engines is not None:
            await engines.stop()
        await agent.stop()
        await holder.close()
        await upstreams.close()
        await host.close()

    app.on_startup.append(start)
    app.on_shutdown.append(drain)
    app.on_cleanup.append(stop)


def _serving_settings(config: Config, enrolment: Enrolment) -> ServingSettings:
    return ServingSettings(
        node=enrolment.node,
        tier="edge",
        region=enrolment.region,
        max_body_bytes=config.max_body_bytes,
        default_deadline_ms=config.default_deadline_ms,
        hop_key=bytes.fromhex(enrolment.hop_key),
        admin_token=read_token(Path(config.admin_token_file)) if config.admin_token_file else "",
    )


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps a node from starting is a matter of its settings, state or enrolment."""
    try:
        yield
    except FoothillError as error:
        raise SettingsError(error.message) from error


if __name__ == "__main__":
    main(*sys.argv[1:2])
