"""A fleet manager put together from its parts; nothing of it runs yet."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from contracts.messages import MAX_WANT_MESSAGE_BYTES
from fleet.acceptance import Acceptances
from fleet.app import Parts
from fleet.audit_reader import AuditReader
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
from fleet.planning import Planner
from fleet.registry import Registry
from fleet.signing import Signing
from fleet.state import State, Worker
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust.tls import checked

DATABASE, ADMIN_TOKEN, CLIENT_ID, CHUNKS_ID = "fleet.db", "admin.token", "fleet", "fleet-chunks"


class _Ground(NamedTuple):
    """What all parts stand on. `hop_key` in hex; `clock` gives unix time."""

    config: FleetConfig
    worker: Worker
    state: State
    signing: Signing
    blobs: OciLayout
    telemetry: Telemetry
    metrics: Metrics
    hop_key: str
    clock: Callable[[], float]

    @property
    def directory(self) -> Path:
        return Path(self.config.state_dir)

    @property
    def tuf_directory(self) -> Path:
        return self.directory / "tuf"


class _Links(NamedTuple):
    """To the broker: for the control plane, and for chunks, since what is large must not hold up what is urgent.

    `told_url` is what nodes are told; `restarts` counts those of this process's own broker.
    """

    control: MqttPort
    chunks: MqttPort
    told_url: str
    restarts: Callable[[], int]


@asynccontextmanager
async def assembled(config: FleetConfig, broker: Broker | None, clock: Callable[[], float]) -> AsyncIterator[Parts]:
    """All parts; their files are closed in the end. `broker` is this process's own. Raises SettingsError."""
    worker, links = Worker(), _links(config, broker)
    state = await worker.run(State, Path(config.state_dir) / DATABASE, clock)
    try:
        yield await _parts(await _ground(config, worker, state, clock), links)
    finally:
        await worker.run(state.close)
        worker.close()


def _links(config: FleetConfig, broker: Broker | None) -> _Links:
    url, tls = config.broker_url if broker is None else broker.url, checked(config.tls)
    try:
        return _Links(
            MqttPort(url, CLIENT_ID, tls=tls),
            MqttPort(url, CHUNKS_ID, max_packet_bytes=MAX_WANT_MESSAGE_BYTES, tls=tls),
            told_url=config.node_broker_url or url,
            restarts=lambda: 0 if broker is None else broker.restarts,
        )
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error


async def _ground(config: FleetConfig, worker: Worker, state: State, clock: Callable[[], float]) -> _Ground:
    directory, telemetry = Path(config.state_dir), Telemetry()
    keys = await worker.run(KeyFiles, directory / "keys")
    signing = await worker.run(Signing, directory / "tuf", keys, config.lifetimes, clock)
    blobs = OciLayout(directory / "oci")
    await worker.run(blobs.open)
    hop_key = await worker.run(keys.hop)
    return _Ground(config, worker, state, signing, blobs, telemetry, Metrics(telemetry.registry), hop_key, clock)


async def _parts(ground: _Ground, links: _Links) -> Parts:
    config, worker, state, signing, clock = ground.config, ground.worker, ground.state, ground.signing, ground.clock
    registry, acceptances = Registry(state, ground.blobs, signing, clock), Acceptances(state, clock)
    controller = _controller(ground, links.control, registry, acceptances)
    admin_token_file = ground.directory / ADMIN_TOKEN
    return Parts(
        config=config,
        worker=worker,
        state=state,
        blobs=ground.blobs,
        signing=signing,
        registry=registry,
        engines=await _engines(ground),
        acceptances=acceptances,
        audit_reader=AuditReader(ground.directory / DATABASE),
        enrolment=Enrolment(state, signing, clock, config.token_ttl_s),
        controller=controller,
        chunks=_chunks(ground, links.chunks, controller),
        metrics=ground.metrics,
        telemetry=ground.telemetry,
        tuf_directory=ground.tuf_directory,
        admin_token=await worker.run(read_or_create, admin_token_file, lambda: secrets.token_urlsafe(32)),
        hop_key=ground.hop_key,
        broker_url=links.told_url,
        broker_restarts=links.restarts,
    )


def _controller(ground: _Ground, port: MqttPort, registry: Registry, acceptances: Acceptances) -> Controller:
    return Controller(
        port=port,
        worker=ground.worker,
        state=ground.state,
        signing=ground.signing,
        orders=Orders(ground.state, ground.signing, ground.clock, ground.config.desired_ttl_s),
        planner=Planner(
            worker=ground.worker,
            state=ground.state,
            registry=registry,
            acceptances=acceptances,
            config=ground.config,
        ),
        metrics=ground.metrics,
        hop_key=bytes.fromhex(ground.hop_key),
        clock=ground.clock,
    )


async def _engines(ground: _Ground) -> EngineShelf:
    shelf = EngineShelf(
        ground.directory / "engines",
        ground.config.engines,
        state=ground.state,
        blobs=ground.blobs,
        signing=ground.signing,
        clock=ground.clock,
    )
    await ground.worker.run(shelf.open)
    return shelf


def _chunks(ground: _Ground, port: MqttPort, controller: Controller) -> ChunkService:
    return ChunkService(
        port=port,
        worker=ground.worker,
        state=ground.state,
        signing=ground.signing,
        blobs=ground.blobs,
        tuf_directory=ground.tuf_directory,
        settings=ground.config.chunks,
        metrics=ground.metrics,
        node=controller.node,
    )
