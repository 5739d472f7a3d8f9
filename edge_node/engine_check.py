"""Whether an engine may take over: it must load, be the bundle's model, answer like it, and be worth it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from contracts.engines import EngineRecord, Wanted, engine_artifact, wanted_of
from contracts.errors import FoothillError
from contracts.manifest import Artifact, Manifest, TensorSpec
from edge_node.latency import SLACK_MS, fastest_ms, served_ms
from runtime.links.bundles.store import BundleStore
from runtime.serving.engines.engine import Engine
from runtime.serving.engines.tensorrt_errors import EngineRefused
from runtime.serving.models.golden import check_golden
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.models.warm_up import first_row, warm_up

SLOWEST = 1.5
"""An engine that takes this many times longer than what serves now, and this much, is no gain, whatever it is."""


class CheckedEngine(Engine, Protocol):
    """An engine that can be held to a manifest."""

    def check(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None: ...


OpenEngine = Callable[[Path, EngineRecord, Path], CheckedEngine]
"""From the engine's file, its record, and the ONNX file for the weights of a stripped one. Raises FoothillError."""


class Task(NamedTuple):
    """One served bundle with something to build an engine from."""

    model: str
    digest: str
    target: str
    directory: Path
    manifest: Manifest
    artifact: Artifact
    wanted: Wanted

    @property
    def onnx(self) -> Path:
        return self.directory / self.artifact.file


def task_of(bundles: BundleStore, model: str, digest: str, target: str) -> Task | None:
    """Blocks. None where the bundle has nothing to build from for this target; raises FoothillError `bad_bundle`."""
    manifest = bundles.manifest(digest)
    artifact = engine_artifact(manifest, target)
    if artifact is None:
        return None
    return Task(model, digest, target, bundles.path(digest), manifest, artifact, wanted_of(manifest, artifact))


def open_checked(task: Task, path: Path, record: EngineRecord, open_engine: OpenEngine) -> LoadedModel:
    """Blocks. Raises FoothillError: `bad_bundle` for what is not the model, others when the GPU has no room now."""
    engine = open_engine(path, record, task.onnx)
    loaded = LoadedModel(task.directory, task.digest, task.manifest, task.artifact, engine, task.target)
    try:
        engine.check(task.manifest.inputs, task.manifest.outputs)
        check_golden(loaded)
        warm_up(loaded)
    except FoothillError:
        engine.close()
        raise
    return loaded


async def check_speed(task: Task, loaded: LoadedModel, host: ModelHost, clock: Callable[[], float]) -> str:
    """Compares one row with what serves now; returns both times in words. Raises EngineRefused for no gain."""
    inputs = await asyncio.to_thread(first_row, loaded)
    own_ms = await asyncio.to_thread(fastest_ms, loaded, inputs, clock)
    now_ms = await served_ms(task.model, inputs, host, clock)
    words = f"{own_ms:.2f} ms with the engine, {now_ms:.2f} ms as it is served now"
    if own_ms > SLOWEST * now_ms + SLACK_MS:
        raise EngineRefused(f"The engine is no gain: {words}.")
    return words
