"""A node's engines with real tools: the installed TensorRT, a builder in a child process, the fleet's registry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from contracts.boards import BOARDS, Fingerprint
from contracts.engines import EngineRecord, Kind, Machine, machine_of
from contracts.messages import Signed
from edge_node.config import Config
from edge_node.engine_source import EngineSource, NoShared, SharedEngines, Vitals
from edge_node.engines import Engines
from edge_node.room import Room
from edge_node.updater import Updater
from edge_node.vitals import available_bytes, hottest_c
from runtime.links.bundles.engine_registry import EngineRegistry, open_endorsed
from runtime.links.bundles.store import BundleStore
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet, TrustUnavailable
from runtime.serving.engines.store import EngineStore
from runtime.serving.engines.tensorrt_build import Bounds, BuiltFile, build_apart
from runtime.serving.engines.tensorrt_engine import open_engine
from runtime.serving.engines.tensorrt_options import BuildOptions
from runtime.serving.engines.trials import TrialFile
from runtime.serving.models.hosting import ModelHost

log = logging.getLogger(__name__)

DIRECTORY, TRIALS_FILE = "engines", "engine_trials.json"


def open_engines(
    config: Config,
    fingerprint: Fingerprint,
    *,
    state_dir: Path,
    private_key: bytes,
    fleet_url: str,
    trust: TrustedFleet,
    bundles: BundleStore,
    host: ModelHost,
    updater: Updater,
    room: Room,
) -> Engines | None:
    """None where engines are off, or where nothing here runs one."""
    kind = kind_for(config, fingerprint)
    if kind is None:
        return None
    keys = partial(_fleet_keys, trust)
    shared: SharedEngines = EngineRegistry(fleet_url, keys, config.tls) if config.share_engines else NoShared()
    source = EngineSource(
        machine=machine_of(fingerprint, kind),
        store=EngineStore(
            state_dir / DIRECTORY,
            cap_bytes=config.engine_store_bytes,
            open_record=partial(open_record, signatures.public_key(private_key), partial(trust.keys, "engine")),
        ),
        trials=TrialFile(state_dir / TRIALS_FILE),
        shared=shared,
        build=partial(_build, Bounds(memory_bytes=config.engine_build_bytes)),
        sign=lambda record: signatures.sign(record, private_key),
        vitals=lambda: Vitals(available_bytes(), hottest_c()),
    )
    return Engines(
        source=source,
        open_engine=partial(open_engine, kind),
        bundles=bundles,
        host=host,
        updater=updater,
        target=fingerprint.target,
        room=room,
    )


def kind_for(config: Config, fingerprint: Fingerprint) -> Kind | None:
    """The runtime to build for: TensorRT before TensorRT-RTX. None: ONNX Runtime alone serves."""
    if config.engines == "off" or BOARDS[fingerprint.target].family == "cpu":
        return None
    if fingerprint.tensorrt:
        return "tensorrt"
    if fingerprint.tensorrt_rtx:
        return "tensorrt-rtx"
    log.warning("engines are wanted, but no TensorRT is installed for this Python; ONNX Runtime serves alone")
    return None


def open_record(own: str, fleet_keys: Callable[[], Mapping[str, str]], signed: Signed) -> EngineRecord:
    """The record of an engine that this node (public key `own`) built, or that the fleet vouches for.

    Raises FoothillError `forbidden`, `unavailable` while the fleet's keys were never seen.
    """
    own_id = signatures.key_id(own)
    if signed.key_id == own_id:
        return signatures.verify(signed, {own_id: own}, EngineRecord)
    return open_endorsed(signed, fleet_keys())


def _fleet_keys(trust: TrustedFleet) -> Mapping[str, str]:
    """Blocks. The newest keys that can be had: an engine may be signed by one that is newer than those at hand."""
    try:
        trust.refresh()
    except TrustUnavailable as error:
        log.info("the fleet's keys are not renewed: %s", error.message)
    return trust.keys("engine")


async def _build(
    bounds: Bounds, onnx: Path, options: BuildOptions, machine: Machine, room: Path, timings: Path | None
) -> BuiltFile:
    return await build_apart(onnx, options, machine, room, timings=timings, bounds=bounds)
