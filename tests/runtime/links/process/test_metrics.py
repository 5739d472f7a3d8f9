from __future__ import annotations

import asyncio
import threading

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from runtime.links.process.telemetry import Telemetry


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


async def test_tasks_are_those_of_the_loop_that_is_asked() -> None:
    registry = Telemetry().registry
    before = value_of(registry, "foothill_tasks")
    task = asyncio.create_task(asyncio.Event().wait())
    assert value_of(registry, "foothill_tasks") == before + 1
    task.cancel()


def test_where_no_loop_runs_nothing_is_said_of_tasks() -> None:
    assert "foothill_tasks" not in generate_latest(Telemetry().registry).decode()
