"""An edge node put together from its parts; nothing of it runs yet."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from contracts.boards import Fingerprint
from contracts.messages import Vitals
from edge_node.agent import Agent
from edge_node.certificates import NodeCertificates, seed_certificate
from edge_node.config import Config
from edge_node.engines import Engines
from edge_node.enrol import TRUST_DIR, Enrolment
from edge_node.late import LatePart
from edge_node.latency import LatencyRule
from edge_node.loader import Loader
from edge_node.machine import NodeMachine
from edge_node.metrics import NodeMetrics, VitalMetrics
from edge_node.pipelines import Pipelines
from edge_node.probation import Rule
from edge_node.quality import is_strained
from edge_node.room import Room
from edge_node.slots import SlotFile
from edge_node.updater import Updater
from edge_node.vitals import available_bytes, read_vitals
from edge_node.way import open_way
from edge_node.workshop import open_engines
from runtime.links.access.admission import open_admission
from runtime.links.access.ticket_keys import TicketKeys
from runtime.links.bundles.fetch import Ways, fetch_bundle
from runtime.links.bundles.store import BundleStore
from runtime.links.escalation.holder import Holder
from runtime.links.http.upstream import Upstreams
from runtime.links.mqtt.port import MqttPort, Will
from runtime.links.process.settings import SettingsError
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.key_files import read_token
from runtime.links.trust.tls import TlsConfig, checked, own_context
from runtime.links.trust.tuf import TrustedFleet
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.engines.fingerprint import detect
from runtime.serving.engines.providers import Wish
from runtime.serving.models.golden import open_tested
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.repository import Repository

STORE_DIR, PROVIDERS_DIR = "store", "providers"


class Node(NamedTuple):
    """`restore` brings up what was served before; `pipelines` are for what runs in this process beside the routes."""

    app: web.Application
    restore: Callable[[], Awaitable[None]]
    pipelines: Pipelines
    settings: ServingSettings
    telemetry: Telemetry


class _Ground(NamedTuple):
    """What all parts stand on."""

    config: Config
    enrolment: Enrolment
    state_dir: Path
    fingerprint: Fingerprint
    wish: Wish
    room: Room
    telemetry: Telemetry
    host: ModelHost
    store: BundleStore

    @property
    def fleet_url(self) -> str:
        return self.config.fleet_url or self.enrolment.fleet_url

    @property
    def private_key(self) -> bytes:
        return bytes.fromhex(self.enrolment.private_key)

    @property
    def hop_key(self) -> bytes:
        return bytes.fromhex(self.enrolment.hop_key)


async def build(config: Config, enrolment: Enrolment, state_dir: Path) -> Node:
    """Raises SettingsError, or FoothillError for a state that is broken."""
    ground = await _ground(config, enrolment, state_dir)
    way = open_way(config, enrolment, state_dir, ground.fleet_url)
    trust = TrustedFleet(state_dir / TRUST_DIR, ground.fleet_url, enrolment.root, fetcher=way.fetcher)
    certificates = await asyncio.to_thread(NodeCertificates, state_dir, partial(trust.keys, "certificate"))
    updater = _updater(ground, trust, way.contents, certificates)
    agent = _agent(ground, trust, certificates, updater)
    engines = _engines(ground, trust, updater)
    upstreams = Upstreams(connect_to=config.connect_to, ssl=own_context(config.tls))
    holder = _holder(ground, upstreams, certificates, agent)
    settings, late = _serving_settings(ground), _late(ground, agent, holder)
    app = _app(ground, settings, trust, holder, updater.repository, late)
    _live_with(app, agent, holder, upstreams, ground.host, engines)
    pipelines = Pipelines(ground.host, holder, settings, ground.telemetry, late=late)
    return Node(app, updater.restore, pipelines, settings, ground.telemetry)


async def _ground(config: Config, enrolment: Enrolment, state_dir: Path) -> _Ground:
    return _Ground(
        config,
        enrolment,
        state_dir,
        fingerprint=await asyncio.to_thread(
            detect, target=config.target, provider=config.provider, fallback=config.provider_fallback
        ),
        wish=Wish(config.provider, config.provider_fallback, state_dir / PROVIDERS_DIR, config.reserve_bytes),
        room=Room(available_bytes, config.memory_reserve_bytes, config.memory_short),
        telemetry=Telemetry(),
        host=ModelHost(max_waiting=config.max_waiting, threads=config.threads),
        store=BundleStore(state_dir / STORE_DIR, reserve_bytes=config.reserve_bytes),
    )


def _updater(ground: _Ground, trust: TrustedFleet, ways: Ways, certificates: NodeCertificates) -> Updater:
    config, target = ground.config, ground.fingerprint.target
    loader = Loader(
        ground.store,
        ground.host,
        partial(open_tested, target=target, threads=config.threads, wish=ground.wish),
        target=target,
        room=ground.room,
        latency=LatencyRule(config.max_slowdown, config.default_deadline_ms),
        wish=ground.wish,
    )
    updater = Updater(
        node=ground.enrolment.node,
        store=ground.store,
        slots=SlotFile(ground.state_dir),
        host=ground.host,
        fetch=partial(fetch_bundle, ground.store, trust, ways),
        loader=loader,
        rule=Rule(config.probation_s, config.probation_requests),
        serving=partial(_seed, certificates),
        made=ground.wish.cache,
    )
    NodeMetrics(ground.telemetry.registry, updater)
    return updater


def _agent(ground: _Ground, trust: TrustedFleet, certificates: NodeCertificates, updater: Updater) -> Agent:
    config, enrolment = ground.config, ground.enrolment
    vitals = partial(read_vitals, ground.store.free_bytes)
    VitalMetrics(ground.telemetry.registry, vitals)
    machine = NodeMachine(ground.fingerprint, ground.host)

    def look() -> Vitals:
        machine.look()
        return vitals()

    def looked(now: Vitals) -> None:
        least_memory, least_disk = config.memory_reserve_bytes, config.reserve_bytes
        ground.host.looked(strained=is_strained(now, least_memory_bytes=least_memory, least_disk_bytes=least_disk))

    return Agent(
        node=enrolment.node,
        private_key=ground.private_key,
        open_port=partial(_open_port, config.broker_url or enrolment.broker_url, enrolment.node, checked(config.tls)),
        updater=updater,
        trust=trust,
        certificates=certificates,
        fingerprint=machine.fingerprint,
        load=ground.host.load,
        vitals=look,
        looked=looked,
        counts=ground.host.meters.counts,
        capabilities=config.capabilities,
    )


def _engines(ground: _Ground, trust: TrustedFleet, updater: Updater) -> Engines | None:
    return open_engines(
        ground.config,
        ground.fingerprint,
        state_dir=ground.state_dir,
        private_key=ground.private_key,
        fleet_url=ground.fleet_url,
        trust=trust,
        bundles=ground.store,
        host=ground.host,
        updater=updater,
        room=ground.room,
    )


def _holder(ground: _Ground, upstreams: Upstreams, certificates: NodeCertificates, agent: Agent) -> Holder:
    config, enrolment = ground.config, ground.enrolment
    return Holder(
        node=enrolment.node,
        cloud_urls=config.cloud_urls or enrolment.cloud_urls,
        cloud_region=config.cloud_region,
        upstreams=upstreams,
        certificates=certificates.live,
        hop_key=ground.hop_key,
        hop_name="node",
        publish_audit=agent.publish_audit,
        telemetry=ground.telemetry,
        rng=random.Random(),
        audit_rate=config.audit_rate,
    )


def _app(
    ground: _Ground,
    settings: ServingSettings,
    trust: TrustedFleet,
    holder: Holder,
    repository: Repository,
    late: LatePart | None,
) -> web.Application:
    """The routes, with whoever asks who calls, and with what is answered late."""
    config = ground.config
    keys = TicketKeys(partial(_at_hand, trust)) if config.auth.tickets else None
    admission = open_admission(
        config.auth,
        keys=keys,
        audience=settings.node,
        admin_token=settings.admin_token,
        hop_key=settings.hop_key,
    )
    app = create_app(
        ground.host,
        settings,
        holder=holder,
        telemetry=ground.telemetry,
        repository=repository,
        admission=admission,
        spool=late.spooling if late is not None else None,
    )
    for part in (keys, late):
        if part is not None:
            part.live_in(app)
    return app


def _serving_settings(ground: _Ground) -> ServingSettings:
    config, enrolment = ground.config, ground.enrolment
    return ServingSettings(
        node=enrolment.node,
        tier="edge",
        region=enrolment.region,
        max_body_bytes=config.max_body_bytes,
        max_pixels=config.max_pixels,
        default_deadline_ms=config.default_deadline_ms,
        hop_key=ground.hop_key,
        admin_token=read_token(Path(config.admin_token_file)) if config.admin_token_file else "",
    )


def _late(ground: _Ground, agent: Agent, holder: Holder) -> LatePart | None:
    if not ground.config.spool.max_bytes:
        return None
    return LatePart(
        ground.state_dir,
        ground.config.spool,
        node=agent.node,
        ask=holder.ask_late,
        publish=agent.publish_late,
        registry=ground.telemetry.registry,
        reserve_bytes=ground.config.reserve_bytes,
    )


def _open_port(broker_url: str, node: str, tls: TlsConfig, will: Will) -> MqttPort:
    try:
        return MqttPort(broker_url, f"node-{node}", will=will, tls=tls)
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error


async def _at_hand(trust: TrustedFleet) -> TrustedFleet:
    return trust


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
