"""Wiring of one of the router's processes: its parts, and the application over them."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
from aiohttp import web

from contracts.budgets import RetryBudget
from contracts.messages import Audit
from contracts.tickets import Limits
from router.app import Routes, create_app
from router.budgets import Budgets, OwnPurse, Purse
from router.calls import Calls
from router.config import Config, TicketConfig
from router.discovery import CertificateTable, Discovery, NodeTable
from router.facts import Facts
from router.fields import Fields
from router.hub import Alone, Hub
from router.ledger import FILE, Ledger, read_book
from router.metrics import RouterMetrics
from router.nodes import Nodes
from router.places.client_address import parse_networks
from router.places.geo import Geo
from router.probes import Probes, Told, unheard
from router.proxy import Proxy
from router.results import Results
from router.seeing.opening import Seeing
from router.seeing.witness import Witness
from router.shortcut import Ways
from router.stories import PART, Stories
from router.tickets import Tickets
from router.tries import Tries
from runtime.links.access.admission import Admission
from runtime.links.access.tokens import LimitOf, TokenFile
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.accounts import Accounts, Rim
from runtime.links.http.upstream import Upstreams
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.fleet_keys import FleetKeys
from runtime.links.trust.key_files import find_hop_key_file, read_hop_key, read_ticket_key
from runtime.links.trust.roots import open_fleet
from runtime.links.trust.tls import checked, own_context

log = logging.getLogger(__name__)

_BROKER_PAUSE_S = 1.5
"""Routers are few: unlike thousands of nodes they may all ask a broker that is coming back this often."""

Life = Callable[[web.Application], AsyncIterator[None]]


class Parts(NamedTuple):
    """What most parts of a process share and none owns."""

    config: Config
    telemetry: Telemetry
    nodes: Nodes
    certificates: Certificates
    hop_key: bytes
    budget: RetryBudget
    rng: random.Random
    upstreams: Upstreams


@asynccontextmanager
async def parts_of(config: Config, *, rng: random.Random, hop_key: bytes = b"") -> AsyncIterator[Parts]:
    """Without a `hop_key` the configuration's. Raises SettingsError where a file that it names cannot be read."""
    config = msgspec.structs.replace(config, hop_key_file=find_hop_key_file(config.hop_key_file))
    upstreams = Upstreams(connect_to=config.connect_to, ssl=own_context(config.tls))
    try:
        yield Parts(
            config,
            Telemetry(),
            Nodes(config.place, config.nodes, config.ms_per_cost_unit),
            Certificates(),
            hop_key or _hop_key(config),
            RetryBudget(),
            rng,
            upstreams,
        )
    finally:
        await upstreams.close()


@asynccontextmanager
async def wired(config: Config, *, rng: random.Random) -> AsyncIterator[web.Application]:
    """The application of a router that is one process. What talks to the broker starts with the application, once it
    listens."""
    async with AsyncExitStack() as closing:
        parts = await closing.enter_async_context(parts_of(config, rng=rng))
        discovery = discovery_of(parts, parts.nodes, parts.certificates)
        holder = holder_of(parts, discovery.publish_audit if discovery else None)
        closing.push_async_callback(holder.close)
        results = Results(holder, clock=time.monotonic, wall=time.time)
        closing.push_async_callback(results.close)
        ledger = ledger_of(parts.config)
        app = app_of(parts, holder, Alone(discovery, results, parts.telemetry, OwnPurse(ledger.budgets)))
        app.cleanup_ctx.append(working(ledger))
        app.cleanup_ctx.append(working(probes_of(parts)))
        if discovery is not None:
            app.cleanup_ctx.append(working(discovery))
        yield app


def holder_of(parts: Parts, publish_audit: Callable[[Audit], None] | None) -> Holder:
    """Without a broker nobody reads audits, and without the fleet's hop key nobody believes them: none are drawn."""
    config = parts.config
    return Holder(
        node=config.name,
        cloud_urls=config.cloud_urls,
        cloud_region=config.cloud_region,
        upstreams=parts.upstreams,
        certificates=parts.certificates,
        hop_key=parts.hop_key,
        hop_name="router",
        publish_audit=publish_audit or _unread,
        audit_rate=config.audit_rate if publish_audit and config.hop_key_file else 0.0,
        telemetry=parts.telemetry,
        rng=parts.rng,
        budget=parts.budget,
    )


def app_of(parts: Parts, holder: Holder, hub: Hub) -> web.Application:
    """The application of a process that answers requests."""
    config = parts.config
    geo = Geo.open(config.geoip_database)
    calls = Calls(
        hop_key=parts.hop_key,
        default_deadline_ms=config.default_deadline_ms,
        max_body_bytes=config.max_body_bytes,
        trusted=parse_networks(config.trusted_proxies),
        geo=geo,
        clock=time.monotonic,
        wall=time.time,
    )
    metrics = RouterMetrics(parts.telemetry.registry, parts.nodes)
    fields = Fields(parts.nodes, parts.rng)
    tries = Tries(
        fields=fields,
        upstreams=parts.upstreams,
        budget=parts.budget,
        metrics=metrics,
        purse=hub.purse,
        owed=holder.may_ask_cloud,
        clock=time.monotonic,
    )
    proxy = Proxy(
        nodes=parts.nodes,
        holder=holder,
        tries=tries,
        promise=hub.promise,
        purse=hub.purse,
        rng=parts.rng,
        clock=time.monotonic,
        cloud_cost=config.cloud_cost_per_request,
    )
    admission = admission_of(config, hub.limit_of)
    routes = Routes(
        config,
        calls=calls,
        holder=holder,
        nodes=parts.nodes,
        metrics=metrics,
        rng=parts.rng,
        clock=time.monotonic,
        tickets=_tickets(config.tickets),
        hub=hub,
    )
    hub.hear_round_trips(routes.note_round_trips)
    facts = Facts(name=config.name, calls=calls, proxy=proxy, holder=holder, nodes=parts.nodes, hub=hub)
    seeing = Seeing(config, calls.address, parts.telemetry.registry, parts.rng)
    rim = Rim(PART, config.name, "none", {}, parts.telemetry, time.monotonic, witness=seeing.witness)
    ways = _ways(parts, calls, proxy, fields, holder, tries, seeing.witness, admission, hub.purse)
    stories = Stories(calls, proxy, parts.nodes, routes.node_for, rim, admission, ways)
    app = create_app(
        routes,
        facts,
        stories,
        hub,
        name=config.name,
        clock=time.monotonic,
        witness=seeing.witness,
        admission=admission,
    )
    app.cleanup_ctx.append(_following(geo))
    app.cleanup_ctx.append(seeing.life)
    return app


def _ways(
    parts: Parts,
    calls: Calls,
    proxy: Proxy,
    fields: Fields,
    holder: Holder,
    tries: Tries,
    witness: Witness,
    admission: Admission | None,
    purse: Purse,
) -> Callable[[Accounts], Ways]:
    return partial(
        Ways,
        calls,
        proxy,
        parts.nodes,
        fields,
        holder,
        parts.upstreams,
        tries,
        witness,
        admission,
        purse,
        hop_key=parts.hop_key,
        max_body_bytes=parts.config.max_body_bytes,
        default_deadline_ms=parts.config.default_deadline_ms,
        clock=time.monotonic,
        wall=time.time,
    )


def admission_of(config: Config, limit_of: LimitOf) -> Admission | None:
    """None where nobody is asked who he is."""
    if not config.tokens_file:
        return None
    return Admission(tokens=TokenFile(Path(config.tokens_file), time.monotonic, limit_of), tickets=None)


def _tickets(config: TicketConfig) -> Tickets | None:
    if not config.key_file:
        return None
    limits = Limits(config.requests, config.escalations, config.bytes)
    return Tickets(read_ticket_key(Path(config.key_file)), ttl_s=config.ttl_s, limits=limits, wall=time.time)


def discovery_of(parts: Parts, nodes: NodeTable, certificates: CertificateTable) -> Discovery | None:
    """Tells both tables what the broker says; None without a broker."""
    config = parts.config
    if not config.broker_url:
        return None
    try:
        name = f"foothill-{config.name}-{secrets.token_hex(4)}"
        mqtt = MqttPort(config.broker_url, name, tls=checked(config.tls), longest_pause_s=_BROKER_PAUSE_S)
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error
    named = Path(config.root) if config.root else None
    open_metadata = partial(open_fleet, named, Path(config.state_dir), config.fleet_url, parts.upstreams, config.tls)
    keys = FleetKeys(open_metadata, time.monotonic)
    return Discovery(mqtt, keys, nodes, certificates, time.monotonic, hop_key=parts.hop_key)


def ledger_of(config: Config) -> Ledger:
    """What tenants have spent, as far as it was saved."""
    path = Path(config.state_dir, FILE)
    return Ledger(path, Budgets(read_book(path), time.monotonic, time.time))


def probes_of(parts: Parts, told: Told = unheard) -> Probes:
    """Of the static nodes."""
    config = parts.config
    return Probes(
        parts.nodes,
        config.nodes,
        parts.upstreams,
        parts.rng,
        interval_s=config.probe_interval_s,
        timeout_s=config.probe_timeout_s,
        told=told,
    )


class Works(Protocol):
    """What goes on behind the requests."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def working(part: Works) -> Life:
    """As long as the application's."""

    async def life(_: web.Application) -> AsyncIterator[None]:
        await part.start()
        yield
        await part.stop()

    return life


def _following(geo: Geo) -> Life:
    async def life(_: web.Application) -> AsyncIterator[None]:
        following = asyncio.create_task(geo.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    return life


def _hop_key(config: Config) -> bytes:
    """The key that marks requests between hops; a random one, which nobody else believes, when no file is named."""
    if config.hop_key_file:
        return read_hop_key(Path(config.hop_key_file))
    log.warning(
        "no hop_key_file is set: nodes and cloud take this router for a client and settle by themselves, and it "
        "publishes no audits, as the fleet manager would not believe them"
    )
    return secrets.token_bytes(32)


def _unread(audit: Audit) -> None:
    """Where an audit goes that nobody can be told of."""
