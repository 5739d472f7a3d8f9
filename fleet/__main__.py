"""The fleet manager as a process: `python -m fleet [CONFIG.toml]`."""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.messages import MAX_WANT_MESSAGE_BYTES
from fleet.acceptance import Acceptances
from fleet.app import Parts, create_app
from fleet.broker import Broker
from fleet.chunks import ChunkService
from fleet.config import FleetConfig
from fleet.controller import Controller
from fleet.engines import EngineShelf
from fleet.enrolment import Enrolment
from fleet.keys import KeyFiles, read_or_create
from fleet.metrics import Metrics
from fleet.oci import OciLayout
from fleet.orders import Orders
from fleet.registry import Registry
from fleet.signing import Signing
from fleet.state import State, Worker
from runtime.links.mqtt import MqttPort
from runtime.links.serve import configure_logging, run_loop, serve_app
from runtime.links.settings import SettingsError, load
from runtime.links.state_dir import held
from runtime.links.telemetry import Telemetry
from runtime.links.tls import checked

log = logging.getLogger(__name__)

DATABASE, ADMIN_TOKEN, CLIENT_ID, CHUNKS_ID = "fleet.db", "admin.token", "fleet", "fleet-chunks"


async def run(config: FleetConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingsError."""
    with held(Path(config.state_dir)):
        async with opened(config) as parts:
            await serve_app(create_app(parts), config.host, config.port, name="fleet", ready=ready)


@asynccontextmanager
async def opened(config: FleetConfig, clock: Callable[[], float] = time.time) -> AsyncIterator[Parts]:
    """All parts, started; stopped in reverse order. `clock` gives unix time."""
    broker: Broker | None = None
    if not config.broker_url:
        broker = Broker(config.broker, table="[broker]")
        await broker.start()
        log.info("fleet: broker (%s) listening on %s", broker.program, broker.url)
    try:
        async with _parts(config, broker, clock) as parts:
            await parts.controller.start()
            await parts.chunks.start()
            try:
                yield parts
            finally:
                await parts.chunks.stop()
                await parts.controller.stop()
    finally:
        if broker is not None:
            await broker.stop()


@asynccontextmanager
async def _parts(config: FleetConfig, broker: Broker | None, clock: Callable[[], float]) -> AsyncIterator[Parts]:
    directory, worker = Path(config.state_dir), Worker()
    broker_url = config.broker_url if broker is None else broker.url
    port, chunk_port = _ports(config, broker_url)
    state = await worker.run(State, directory / DATABASE)
    try:
        keys = await worker.run(KeyFiles, directory / "keys")
        signing = await worker.run(Signing, directory / "tuf", keys, config.lifetimes, clock)
        blobs = OciLayout(directory / "oci")
        await worker.run(blobs.open)
        registry = Registry(state, blobs, signing, clock)
        engines = EngineShelf(
            directory / "engines", config.engines, state=state, blobs=blobs, signing=signing, clock=clock
        )
        await worker.run(engines.open)
        orders = Orders(state, signing, clock, config.desired_ttl_s)
        acceptances = Acceptances(state, clock)
        telemetry = Telemetry()
        metrics = Metrics(telemetry.registry)
        hop_key = await worker.run(keys.hop)
        controller = Controller(
            port=port,
            worker=worker,
            state=state,
            signing=signing,
            registry=registry,
            orders=orders,
            acceptances=acceptances,
            config=config,
            metrics=metrics,
            hop_key=bytes.fromhex(hop_key),
            clock=clock,
        )
        yield Parts(
            config=config,
            worker=worker,
            state=state,
            blobs=blobs,
            signing=signing,
            registry=registry,
            engines=engines,
            acceptances=acceptances,
            enrolment=Enrolment(state, signing, clock, config.token_ttl_s),
            controller=controller,
            chunks=_chunks(config, chunk_port, worker, state, signing, blobs, metrics, controller),
            metrics=metrics,
            telemetry=telemetry,
            tuf_directory=directory / "tuf",
            admin_token=await worker.run(read_or_create, directory / ADMIN_TOKEN, lambda: secrets.token_urlsafe(32)),
            hop_key=hop_key,
            broker_url=config.node_broker_url or broker_url,
            broker_restarts=lambda: 0 if broker is None else broker.restarts,
        )
    finally:
        await worker.run(state.close)
        worker.close()


def _chunks(
    config: FleetConfig,
    port: MqttPort,
    worker: Worker,
    state: State,
    signing: Signing,
    blobs: OciLayout,
    metrics: Metrics,
    controller: Controller,
) -> ChunkService:
    return ChunkService(
        port=port,
        worker=worker,
        state=state,
        signing=signing,
        blobs=blobs,
        tuf_directory=Path(config.state_dir) / "tuf",
        settings=config.chunks,
        metrics=metrics,
        node=controller.node,
    )


def _ports(config: FleetConfig, broker_url: str) -> tuple[MqttPort, MqttPort]:
    """For the control plane, and for chunks: what is large must not hold up what is urgent. Raises SettingsError."""
    tls = checked(config.tls)
    try:
        return (
            MqttPort(broker_url, CLIENT_ID, tls=tls),
            MqttPort(broker_url, CHUNKS_ID, max_packet_bytes=MAX_WANT_MESSAGE_BYTES, tls=tls),
        )
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error


def main() -> None:
    configure_logging()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None

    async def life() -> None:
        await run(load(path, FleetConfig))

    run_loop(life())


if __name__ == "__main__":
    main()
