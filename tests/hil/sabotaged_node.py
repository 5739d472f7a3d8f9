"""`python -m tests.hil.sabotaged_node DIRECTORY FLAW`: a node that serves one small bundle, with one thing wrong."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contracts.errors import FoothillError
from runtime.links.bundles.store import BundleStore
from runtime.links.http.serve import start_app
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.engines.engine import Engine
from runtime.serving.engines.tensors import Array
from runtime.serving.models.hosting import ModelHost
from runtime.serving.repository import StoredBundles
from tests.edge_node.bundle_factory import pack

TOKEN = "secret"
LEAK_BYTES_PER_S = 20_000_000
FLAWS = ("sound", "crooked", "leaky", "slow", "failing")


class Sabotaged:
    """An engine with a flaw that only the outside can see."""

    def __init__(self, engine: Engine, flaw: str) -> None:
        self.provider = engine.provider
        self.concurrent = False
        self._engine = engine
        self._flaw = flaw
        self._lost: list[bytes] = []
        self._leaked_s = time.monotonic()
        self._runs = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._runs += 1
        if self._flaw == "slow":
            time.sleep(0.1)
        if self._flaw == "leaky":
            # By the time, not by the run: as much on a slow machine as on a fast one.
            since_s, self._leaked_s = self._leaked_s, time.monotonic()
            self._lost.append(b"x" * int(min(1.0, self._leaked_s - since_s) * LEAK_BYTES_PER_S))
        if self._flaw == "failing" and self._runs % 50 == 0:
            raise FoothillError("internal", "sabotage")
        outputs = self._engine.run(inputs)
        crooked = np.float32(0.5 if self._flaw == "crooked" else 0.0)
        return {name: array + crooked for name, array in outputs.items()}

    def close(self) -> None:
        self._engine.close()


async def serve(directory: Path, flaw: str) -> None:
    digest = pack(directory / "bundle")
    host, store = ModelHost(), BundleStore(directory / "store", reserve_bytes=0)
    store.add_directory(directory / "bundle")
    bundles = StoredBundles(host, store, target="cpu-x86", threads=1)
    await bundles.serve("digits", digest)
    loaded = host.get("digits").loaded
    loaded.engine = Sabotaged(loaded.engine, flaw)
    settings = ServingSettings(node="board", tier="edge", admin_token=TOKEN)
    app = create_app(host, settings, holder=None, telemetry=Telemetry(), repository=bundles)
    _, url = await start_app(app, "127.0.0.1", 0, name="board", drain_s=0.1)
    print(url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
