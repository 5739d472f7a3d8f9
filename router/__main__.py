"""Wiring of the router's process."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiohttp import web

from contracts.budgets import RetryBudget
from contracts.messages import Audit
from contracts.tickets import Limits
from router.app import Routes, create_app
from router.budgets import Budgets, Purse
from router.calls import Calls
from router.config import Config, TicketConfig
from router.discovery import Discovery
from router.facts import Facts
from router.fields import Fields
from router.late_results import LateResults
from router.ledger import FILE, Ledger, read_book
from router.metrics import RouterMetrics
from router.nodes import Nodes
from router.places.client_address import parse_networks
from router.places.geo import Geo
from router.probes import Probes
from router.proxy import Proxy
from router.results import Results
from router.shortcut import Ways
from router.stories import PART, Stories
from router.tickets import Tickets
from router.tries import Tries
from runtime.links.access.admission import Admission
from runtime.links.access.tokens import TokenFile
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.accounts import Accounts, Rim
from runtime.links.http.exposure import check_exposure
from runtime.links.http.https import listener_context
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.http.upstream import Upstreams
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError, load
from runtime.links.process.state_dir import held
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.fleet_keys import FleetKeys
from runtime.links.trust.key_files import find_hop_key_file, read_hop_key, read_ticket_key
from runtime.links.trust.roots import open_fleet
from runtime.links.trust.tls import checked, own_context

log = logging.getLogger(__name__)


async def run(config: Config, *, ready: Callable[[str], None] | None = None) -> None:
    """Serves until a signal. Raises SettingsError when the configuration cannot work."""
    check_exposure(
        config.host,
        name=config.name,
        protected=bool(config.tokens_file or config.https.client_ca_file),
        insecure=config.insecure,
        remedy="name the tokens that may call in `tokens_file`",
    )
    tls = listener_context(config.https)
    keeps = bool(config.broker_url or config.tokens_file)
    with held(Path(config.state_dir)) if keeps else nullcontext():
        async with wired(config, rng=random.Random()) as app:
            await serve_app(app, config.host, config.port, name=config.name, ready=ready, tls=tls)


@asynccontextmanager
async def wired(config: Config, *, rng: random.Random) -> AsyncIterator[web.Application]:
    """The application over all its parts. What talks to the broker starts with the application, once it listens."""
    config = msgspec.structs.replace(config, hop_key_file=find_hop_key_file(config.hop_key_file))
    hop_key, trusted = _hop_key(config), parse_networks(config.trusted_proxies)
    ledger = Path(config.state_dir, FILE)
    budgets = Budgets(read_book(ledger), time.monotonic, time.time)
    parts = _Parts(
        Telemetry(),
        Nodes(config.place, config.nodes, config.ms_per_cost_unit),
        Certificates(),
        hop_key,
        RetryBudget(),
        budgets,
        rng,
    )
    async with AsyncExitStack() as closing:
        upstreams = Upstreams(connect_to=config.connect_to, ssl=own_context(config.tls))
        closing.push_async_callback(upstreams.close)
        geo = Geo.open(config.geoip_database)
        discovery = _discovery(config, parts, upstreams)
        holder = _holder(config, parts, upstreams, discovery)
        closing.push_async_callback(holder.close)
        calls = Calls(
            hop_key=hop_key,
            default_deadline_ms=config.default_deadline_ms,
            max_body_bytes=config.max_body_bytes,
            trusted=trusted,
            geo=geo,
            clock=time.monotonic,
            wall=time.time,
        )
        results = Results(holder, clock=time.monotonic, wall=time.time)
        closing.push_async_callback(results.close)
        app = _app(config, parts, calls, holder, results, upstreams, discovery)
        app.cleanup_ctx.append(_following(geo))
        app.cleanup_ctx.append(_probing(config, parts, upstreams))
        app.cleanup_ctx.append(_keeping(Ledger(ledger, budgets)))
        if discovery is not None:
            app.cleanup_ctx.append(_discovering(discovery))
        yield app


def _hop_key(config: Config) -> bytes:
    """The key that marks requests between hops; a random one, which nobody else believes, when no file is named."""
    if config.hop_key_file:
        return read_hop_key(Path(config.hop_key_file))
    log.warning(
        "no hop_key_file is set: nodes and cloud take this router for a client and settle by themselves, and it "
        "publishes no audits, as the fleet manager would not believe them"
    )
    return secrets.token_bytes(32)


class _Parts(NamedTuple):
    """What most parts share and none owns."""

    telemetry: Telemetry
    nodes: Nodes
    certificates: Certificates
    hop_key: bytes
    budget: RetryBudget
    purse: Purse
    rng: random.Random


def _holder(config: Config, parts: _Parts, upstreams: Upstreams, discovery: Discovery | None) -> Holder:
    """Without a broker nobody reads audits, and without the fleet's hop key nobody believes them: none are drawn."""
    return Holder(
        node=config.name,
        cloud_urls=config.cloud_urls,
        cloud_region=config.cloud_region,
        upstreams=upstreams,
        certificates=parts.certificates,
        hop_key=parts.hop_key,
        hop_name="router",
        publish_audit=discovery.publish_audit if discovery else _unread,
        audit_rate=config.audit_rate if discovery and config.hop_key_file else 0.0,
        telemetry=parts.telemetry,
        rng=parts.rng,
        budget=parts.budget,
    )


def _app(
    config: Config,
    parts: _Parts,
    calls: Calls,
    holder: Holder,
    results: Results,
    upstreams: Upstreams,
    discovery: Discovery | None,
) -> web.Application:
    metrics = RouterMetrics(parts.telemetry.registry, parts.nodes)
    fields = Fields(parts.nodes, parts.rng)
    tries = Tries(
        fields=fields,
        upstreams=upstreams,
        budget=parts.budget,
        metrics=metrics,
        purse=parts.purse,
        owed=holder.may_ask_cloud,
        clock=time.monotonic,
    )
    proxy = Proxy(
        nodes=parts.nodes,
        holder=holder,
        tries=tries,
        results=results,
        purse=parts.purse,
        rng=parts.rng,
        clock=time.monotonic,
        cloud_cost=config.cloud_cost_per_request,
    )
    admission = _admission(config)
    routes = Routes(
        config,
        calls=calls,
        holder=holder,
        nodes=parts.nodes,
        metrics=metrics,
        rng=parts.rng,
        clock=time.monotonic,
        tickets=_tickets(config.tickets),
    )
    facts = Facts(
        name=config.name,
        calls=calls,
        proxy=proxy,
        holder=holder,
        nodes=parts.nodes,
        telemetry=parts.telemetry,
        broker_connected=lambda: discovery.connected if discovery else None,
    )
    rim = Rim(PART, config.name, "none", {}, parts.telemetry, time.monotonic)
    ways = _ways(config, parts, calls, proxy, fields, holder, upstreams, tries)
    stories = Stories(calls, proxy, parts.nodes, routes.node_for, rim, admission, ways)
    late = LateResults(results)
    return create_app(routes, facts, stories, late, name=config.name, clock=time.monotonic, admission=admission)


def _ways(
    config: Config,
    parts: _Parts,
    calls: Calls,
    proxy: Proxy,
    fields: Fields,
    holder: Holder,
    upstreams: Upstreams,
    tries: Tries,
) -> Callable[[Accounts], Ways]:
    return partial(
        Ways,
        calls,
        proxy,
        parts.nodes,
        fields,
        holder,
        upstreams,
        tries,
        hop_key=parts.hop_key,
        max_body_bytes=config.max_body_bytes,
        default_deadline_ms=config.default_deadline_ms,
        clock=time.monotonic,
        wall=time.time,
    )


def _admission(config: Config) -> Admission | None:
    if not config.tokens_file:
        return None
    return Admission(tokens=TokenFile(Path(config.tokens_file), time.monotonic), tickets=None)


def _tickets(config: TicketConfig) -> Tickets | None:
    if not config.key_file:
        return None
    limits = Limits(config.requests, config.escalations, config.bytes)
    return Tickets(read_ticket_key(Path(config.key_file)), ttl_s=config.ttl_s, limits=limits, wall=time.time)


def _discovery(config: Config, parts: _Parts, upstreams: Upstreams) -> Discovery | None:
    if not config.broker_url:
        return None
    try:
        name = f"foothill-{config.name}-{secrets.token_hex(4)}"
        mqtt = MqttPort(config.broker_url, name, tls=checked(config.tls))
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error
    named = Path(config.root) if config.root else None
    open_metadata = partial(open_fleet, named, Path(config.state_dir), config.fleet_url, upstreams, config.tls)
    keys = FleetKeys(open_metadata, time.monotonic)
    return Discovery(mqtt, keys, parts.nodes, parts.certificates, time.monotonic, hop_key=parts.hop_key)


def _discovering(discovery: Discovery) -> Callable[[web.Application], AsyncIterator[None]]:
    async def life(_: web.Application) -> AsyncIterator[None]:
        await discovery.start()
        yield
        await discovery.stop()

    return life


def _probing(config: Config, parts: _Parts, upstreams: Upstreams) -> Callable[[web.Application], AsyncIterator[None]]:
    async def life(_: web.Application) -> AsyncIterator[None]:
        probes = Probes(
            parts.nodes,
            config.nodes,
            upstreams,
            parts.rng,
            interval_s=config.probe_interval_s,
            timeout_s=config.probe_timeout_s,
        )
        probes.start()
        yield
        await probes.stop()

    return life


def _keeping(ledger: Ledger) -> Callable[[web.Application], AsyncIterator[None]]:
    async def life(_: web.Application) -> AsyncIterator[None]:
        ledger.start()
        yield
        await ledger.stop()

    return life


def _following(geo: Geo) -> Callable[[web.Application], AsyncIterator[None]]:
    async def life(_: web.Application) -> AsyncIterator[None]:
        following = asyncio.create_task(geo.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    return life


def _unread(audit: Audit) -> None:
    """Where an audit goes that nobody can be told of."""


def main() -> None:
    """`python -m router [CONFIG.toml]`."""
    configure_logging()
    run_loop(_configured(Path(sys.argv[1]) if len(sys.argv) > 1 else None))


async def _configured(path: Path | None) -> None:
    await run(load(path, Config))


if __name__ == "__main__":
    main()
