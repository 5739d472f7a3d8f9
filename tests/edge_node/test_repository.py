"""An operator's hand on a node's models, while the updater has its own on them: load, unload, what outlives them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from contracts.errors import FoothillError
from edge_node.metrics import NodeMetrics
from edge_node.probation import Rule
from edge_node.room import Room
from edge_node.slots import Slot
from runtime.serving import metadata
from runtime.serving.engines.engine import Engine
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.workbench import LONG, OPEN_TESTED, QUICK, Bench, Warehouse, desired, until

MIB = 1 << 20


class Failing:
    """An engine that fails once the switch is on."""

    concurrent = False

    def __init__(self, engine: Engine, fails: threading.Event) -> None:
        self._engine = engine
        self._fails = fails
        self.provider = engine.provider

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._fails.is_set():
            raise FoothillError("internal", "The engine failed: out of memory.")
        return self._engine.run(inputs)

    def close(self) -> None:
        self._engine.close()


class Opener:
    """Opens bundles as a node does; `gate` holds back the one `held`, and `fails` makes all engines fail."""

    def __init__(self) -> None:
        self.held, self.gate, self.fails = "", threading.Event(), threading.Event()
        self.opened: list[str] = []

    def __call__(self, directory: Path, digest: str) -> LoadedModel:
        self.opened.append(digest)
        assert digest != self.held or self.gate.wait(30)
        loaded = OPEN_TESTED(directory, digest)
        loaded.engine = Failing(loaded.engine, self.fails)
        return loaded


class Site:
    """A node's lives on one directory, each with a memory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.warehouse = Warehouse(directory / "warehouse")
        self.opener = Opener()
        self.available = 0
        self.lives: list[Bench] = []

    def live(self, rule: Rule = QUICK, when_short: str = "wait") -> Bench:
        room = Room(lambda: self.available, 0, "unload" if when_short == "unload" else "wait")
        bench = Bench(self.directory / "node", self.warehouse, rule=rule, room=room, open_bundle=self.opener)
        self.lives.append(bench)
        return bench

    async def end(self) -> None:
        self.opener.gate.set()
        for bench in self.lives:
            await bench.updater.end_probations()
            await bench.host.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.end()


def phase(bench: Bench) -> tuple[str, str]:
    return bench.report().phase, bench.report().serving


def gauge(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"model": "digits", **labels})


def listed(bench: Bench) -> list[tuple[str, str]]:
    return [(line.state, line.reason) for line in metadata.index(bench.host, only_ready=False)]


async def test_a_load_under_way_does_not_take_back_what_the_updater_activates(site: Site) -> None:
    bench = site.live()
    one, two = site.warehouse.pack("1"), site.warehouse.pack("2")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    site.opener.held = one
    loading = asyncio.create_task(bench.repository.load("digits"))
    await until(lambda: len(site.opener.opened) == 2)
    update = asyncio.create_task(bench.updater.apply(desired(2, {"digits": two}), {}))
    await asyncio.sleep(0.5)
    site.opener.gate.set()
    await asyncio.gather(loading, update, return_exceptions=True)
    assert bench.serving() == two
    assert phase(bench) == ("active", two)


async def test_what_was_unloaded_is_told_as_unloaded(site: Site) -> None:
    bench, registry = site.live(), CollectorRegistry()
    NodeMetrics(registry, bench.updater)
    one = site.warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    assert gauge(registry, "foothill_model_serving") == 1
    await bench.repository.unload("digits")
    assert (bench.serving(), *phase(bench)) == ("", "unloaded", "")
    assert gauge(registry, "foothill_model_serving") == 0
    assert gauge(registry, "foothill_model_phase", phase="unloaded") == 1
    await bench.repository.load("digits")
    assert (bench.serving(), *phase(bench)) == (one, "active", one)
    assert gauge(registry, "foothill_model_serving") == 1


async def test_a_second_copy_is_not_loaded_where_memory_is_short(site: Site) -> None:
    bench = site.live()
    one = site.warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    site.available = 1
    with pytest.raises(FoothillError, match="MiB of memory") as refused:
        await bench.repository.load("digits")
    assert refused.value.code == "unavailable"
    assert site.opener.opened == [one]
    assert (bench.serving(), *phase(bench)) == (one, "active", one)


async def test_what_is_loaded_again_on_probation_is_watched_as_before(site: Site) -> None:
    bench = site.live(Rule(seconds=3.0, requests=10_000))
    one = site.warehouse.pack("1")
    update = asyncio.create_task(bench.updater.apply(desired(1, {"digits": one}), {}))
    await until(lambda: "digits" in bench.updater.reports and phase(bench) == ("probation", one))
    await bench.repository.load("digits")
    site.opener.fails.set()
    with pytest.raises(FoothillError):
        await bench.ask()
    assert await update
    assert (bench.serving(), *phase(bench)) == ("", "reverted", "")


async def test_what_was_unloaded_on_probation_is_not_judged_until_it_is_loaded_and_then_from_the_beginning(
    site: Site,
) -> None:
    bench = site.live(Rule(seconds=0.3, requests=10_000))
    one = site.warehouse.pack("1")
    update = asyncio.create_task(bench.updater.apply(desired(1, {"digits": one}), {}))
    await until(lambda: bench.serving() == one)
    await bench.repository.unload("digits")
    assert await update
    assert phase(bench) == ("unloaded", "")
    assert bench.slots.get("digits") == Slot(one, proven=False, unloaded=one), "no death is its doing"
    await bench.repository.load("digits")
    assert phase(bench) == ("probation", one)
    trial = bench.slots.get("digits").trial
    assert trial is not None
    assert (trial.digest, trial.sequence) == (one, 1)
    await until(lambda: phase(bench) == ("active", one))
    assert bench.slots.get("digits") == Slot(one)


async def test_errors_before_a_load_still_count_against_what_is_on_probation(site: Site) -> None:
    bench = site.live(LONG)
    one = site.warehouse.pack("1")
    update = asyncio.create_task(bench.updater.apply(desired(1, {"digits": one}), {}))
    await until(lambda: bench.serving() == one)
    bench.break_engine()
    with contextlib.suppress(FoothillError):
        await bench.repository.load("digits")
    assert await update
    assert (bench.serving(), *phase(bench)) == ("", "reverted", "")


async def test_an_unload_outlives_the_node_and_every_document_that_asks_for_the_same(site: Site) -> None:
    bench, one = site.live(), site.warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    await bench.repository.unload("digits")
    await bench.repository.unload("digits")
    for sequence in (1, 2):
        assert await bench.updater.apply(desired(sequence, {"digits": one}), {})
        assert (bench.serving(), *phase(bench)) == ("", "unloaded", "")
    next_life = site.live()
    await next_life.updater.restore()
    assert (next_life.serving(), *phase(next_life)) == ("", "unloaded", "")
    assert listed(next_life) == [("UNAVAILABLE", "unloaded")]
    assert await next_life.updater.apply(desired(3, {"digits": one}), {})
    assert site.warehouse.fetched == site.opener.opened == [one]
    await next_life.repository.load("digits")
    assert (next_life.serving(), *phase(next_life)) == (one, "active", one)
    assert listed(next_life) == [("READY", "")]
    last_life = site.live()
    await last_life.updater.restore()
    assert phase(last_life) == ("active", one)


async def test_another_bundle_ends_an_unload_if_it_proves_itself(site: Site) -> None:
    bench, one, two = site.live(), site.warehouse.pack("1"), site.warehouse.pack("2")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    await bench.repository.unload("digits")
    assert await bench.updater.apply(desired(2, {"digits": two}), {})
    assert (bench.serving(), *phase(bench)) == (two, "active", two)
    assert bench.slots.get("digits") == Slot(two, one)
    assert await bench.updater.apply(desired(3, {"digits": one}), {})
    assert phase(bench) == ("active", one)


@pytest.mark.parametrize("fails", ["its golden test", "on probation"])
async def test_after_another_bundle_that_fails_what_was_unloaded_stays_so(site: Site, fails: str) -> None:
    first, one = site.live(), site.warehouse.pack("1")
    await first.updater.apply(desired(1, {"digits": one}), {})
    await first.repository.unload("digits")
    bench, two = site.live(LONG), site.warehouse.pack("2", golden_error=float(fails == "its golden test"))
    await bench.updater.restore()
    update = asyncio.create_task(bench.updater.apply(desired(2, {"digits": two}), {}))
    if fails == "on probation":
        await until(lambda: bench.serving() == two)
        bench.break_engine()
    assert await update
    assert bench.report().digest == two
    assert phase(bench) == ("failed" if fails == "its golden test" else "reverted", "")
    assert (bench.slots.get("digits").current, bench.slots.get("digits").off) == (one, True)
    assert listed(bench) == [("UNAVAILABLE", "unloaded")]
    await bench.repository.load("digits")
    assert (bench.serving(), bench.report().serving) == (one, one)


async def test_a_model_that_is_withdrawn_is_forgotten_and_comes_back_served(site: Site) -> None:
    bench, one = site.live(), site.warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    await bench.repository.unload("digits")
    assert await bench.updater.apply(desired(2, {}), {})
    assert (dict(bench.updater.reports), listed(bench)) == ({}, [])
    assert await bench.updater.apply(desired(3, {"digits": one}), {})
    assert phase(bench) == ("active", one)


async def test_where_memory_is_short_and_may_be_freed_the_copy_that_serves_goes_first(site: Site) -> None:
    bench, one = site.live(when_short="unload"), site.warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    site.available, site.opener.held = 1, one
    loading = asyncio.create_task(bench.repository.load("digits"))
    await until(lambda: len(site.opener.opened) == 2)
    with pytest.raises(FoothillError, match="away for a moment"):
        await bench.ask()
    site.opener.gate.set()
    await loading
    assert phase(bench) == ("active", one)
    await bench.ask()


async def test_a_bundle_that_went_bad_on_the_disk_is_not_loaded_and_what_serves_goes_on(site: Site) -> None:
    bench, one = site.live(), site.warehouse.pack("1")
    await bench.updater.apply(desired(1, {"digits": one}), {})
    served = bench.host.get("digits")
    next(bench.store.path(one).glob("*.onnx")).write_bytes(b"no model")
    with pytest.raises(FoothillError) as refused:
        await bench.repository.load("digits")
    assert refused.value.code == "bad_bundle"
    assert bench.host.get("digits") is served
    assert phase(bench) == ("active", one)


@pytest.mark.parametrize("act", ["load", "unload"])
async def test_a_model_that_the_node_does_not_have_is_told(site: Site, act: str) -> None:
    bench = site.live()
    with pytest.raises(FoothillError, match="'nope' is not served here") as refused:
        await getattr(bench.repository, act)("nope")
    assert refused.value.code == "model_not_found"
    assert bench.slots.models == {}


async def test_where_the_bundle_before_serves_in_its_place_a_load_that_fails_changes_nothing(site: Site) -> None:
    first, one, two = site.live(), site.warehouse.pack("1"), site.warehouse.pack("2")
    for sequence, digest in enumerate((one, two), start=1):
        await first.updater.apply(desired(sequence, {"digits": digest}), {})
    next(first.store.path(two).glob("*.onnx")).write_bytes(b"no model")
    bench = site.live()
    await bench.updater.restore()
    assert phase(bench) == ("failed", one)
    with pytest.raises(FoothillError):
        await bench.repository.load("digits")
    assert (bench.serving(), *phase(bench)) == (one, "failed", one)
