from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from runtime.links.telemetry import Telemetry


def value_of(registry: CollectorRegistry, name: str) -> float:
    lines = generate_latest(registry).decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_every_process_tells_its_memory_files_and_threads() -> None:
    registry = Telemetry().registry
    assert value_of(registry, "process_resident_memory_bytes") > 1 << 20
    assert value_of(registry, "process_open_fds") >= 3
    before = value_of(registry, "foothill_threads")
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert value_of(registry, "foothill_threads") == before + 1
    done.set()
    thread.join()
